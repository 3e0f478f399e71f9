"""The schema's steps, up and down, on the rows of a real campaign in both kinds of database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from alembic import op
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, MetaData, insert, select

from search.campaign.controller import Controller
from search.errors import UsageError
from search.storage import schema
from search.storage.address import StoreError
from search.storage.database import connect
from search.storage.schema import HEAD
from search.storage.store import Store
from tests.search.instant import InstantEvaluator
from tests.search.recorded import PRUNING, STUDY_RUN
from tests.search.test_first_version import DUMP

Rows = dict[str, list[dict[str, Any]]]

PRUNED = {"campaign_id": "campaign_id", "candidate_id": "id"}
"""Columns of a pruning, and those of the candidate that it is of."""


def known_revisions() -> list[str]:
    config = Config()
    config.set_main_option("script_location", "search.storage:migrations")
    scripts = ScriptDirectory.from_config(config).walk_revisions()
    return sorted(script.revision for script in scripts)


REVISIONS = known_revisions()


@contextmanager
def opened(url: str) -> Iterator[Engine]:
    engine = connect(url, create=True)
    try:
        yield engine
    finally:
        engine.dispose()


def move(url: str, revision: str) -> str | None:
    with opened(url) as engine:
        return schema.migrate(engine, revision)


def contents(url: str) -> Rows:
    """Every row of every table, whatever its revision; Alembic's own table apart."""
    tables = MetaData()
    with opened(url) as engine, engine.connect() as connection:
        tables.reflect(connection)
        return {
            table.name: [
                dict(row._mapping)
                for row in connection.execute(select(table).order_by(*table.primary_key.columns))
            ]
            for table in tables.sorted_tables
            if table.name != "alembic_version"
        }


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """The rows of a campaign that the first version trained, at revision 0002."""
    path = tmp_path_factory.mktemp("first") / "first.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(DUMP.read_text(encoding="utf-8"))
    return contents(f"sqlite:///{path}")


def as_of(revision: str, campaign: Rows) -> Rows:
    """The campaign's rows as that revision would have recorded them."""
    rows = {name: [dict(row) for row in listed] for name, listed in campaign.items()}
    for run in rows["evaluations"]:
        if revision == "0001":
            del run["routing"], run["active_params"]
        elif revision >= "0003":
            said = run.pop("routing")
            run["metrics"] = said and {f"experts_{name}": value for name, value in said.items()}
    if revision >= "0003":
        rows["campaigns"][0]["plugins"] = [{"name": "mine", "version": "1.2"}]
    if revision >= "0005":
        rows["study_runs"] = [STUDY_RUN | {"key": key} for key in "xy"]
    if revision >= "0006":
        rows["candidates"][0]["behaviour"] = "0f" * 16
    if revision >= "0008":
        there = {key: rows["candidates"][0][of] for key, of in PRUNED.items()}
        rows["prunings"] = [PRUNING | there | {"id": number} for number in (3, 5)]
    return rows


def fill(url: str, revision: str, rows: Rows) -> None:
    move(url, revision)
    tables = MetaData()
    with opened(url) as engine, engine.begin() as connection:
        tables.reflect(connection)
        for name, listed in rows.items():
            for row in listed:  # one by one: where a value is missing, the column is null
                there = {key: value for key, value in row.items() if value is not None}
                connection.execute(insert(tables.tables[name]), there)


def common(rows: Rows, other: Rows) -> Rows:
    """What `rows` says in the tables and columns that `other` has, too."""
    return {
        name: [
            {key: value for key, value in row.items() if key in theirs}
            for row, theirs in zip(rows[name], other[name], strict=True)
        ]
        for name in rows.keys() & other.keys()
    }


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_campaign_of_every_revision_goes_up_down_and_on(
    new_url: str, campaign: Rows, revision: str
) -> None:
    fill(new_url, revision, as_of(revision, campaign))
    before = contents(new_url)
    assert common(before, as_of(revision, campaign)) == as_of(revision, campaign)
    assert move(new_url, HEAD) == revision
    newest = contents(new_url)
    assert common(newest, before) == common(before, newest)
    assert move(new_url, revision) == HEAD
    assert contents(new_url) == before
    with Store.open(new_url, create=False) as store:
        assert contents(new_url) == newest
        shown = Controller(store, store.campaign("first"), InstantEvaluator()).run()
    assert (shown.phase, shown.recorded, shown.finals_done) == ("done", 24, 4)
    after = contents(new_url)
    assert after["candidates"][:15] == newest["candidates"]
    assert after["evaluations"][:15] == newest["evaluations"]


def test_all_the_way_down_and_up_again(new_url: str, campaign: Rows) -> None:
    rows = as_of("0001", campaign)
    fill(new_url, "0001", rows)
    before = contents(new_url)
    for revision in (*REVISIONS, *reversed(REVISIONS)):
        move(new_url, revision)
    assert contents(new_url) == before


def test_what_is_said_of_experts_keeps_its_place(new_url: str, campaign: Rows) -> None:
    """It is the one thing that moves to another column, and other metrics cannot go with it."""
    fill(new_url, "0002", campaign)
    (said,) = (row["routing"] for row in campaign["evaluations"] if row["routing"])
    move(new_url, HEAD)
    (found,) = (row["metrics"] for row in contents(new_url)["evaluations"] if row["metrics"])
    assert found == {f"experts_{name}": value for name, value in said.items()}
    tables = MetaData()
    with opened(new_url) as engine, engine.begin() as connection:
        tables.reflect(connection)
        table = tables.tables["evaluations"]
        measured = {**found, "activation_bytes": 4096}
        connection.execute(table.update().where(table.c.sequence == 1).values(metrics=measured))
    move(new_url, "0002")
    runs = contents(new_url)["evaluations"]
    assert [run["sequence"] for run in runs if run["routing"] == said] == sorted(
        {1, *(row["sequence"] for row in campaign["evaluations"] if row["routing"])}
    )


@pytest.mark.parametrize(("start", "end"), [("0002", HEAD), (HEAD, "0001")])
def test_a_step_that_fails_changes_nothing(
    new_url: str, campaign: Rows, monkeypatch: pytest.MonkeyPatch, start: str, end: str
) -> None:
    fill(new_url, start, as_of(start, campaign))
    before = contents(new_url)

    def fail(*arguments: object, **named: object) -> None:
        raise RuntimeError("no power")

    monkeypatch.setattr(op, "add_column" if start < end else "drop_column", fail)
    with pytest.raises(RuntimeError, match="no power"):
        move(new_url, end)
    monkeypatch.undo()
    assert contents(new_url) == before
    assert move(new_url, end) == start


def test_a_revision_that_does_not_exist(new_url: str) -> None:
    move(new_url, HEAD)
    with pytest.raises(UsageError, match=r"no revision '7'; there are: 0001, 0002"):
        move(new_url, "7")


def test_a_database_of_a_newer_version_is_left_alone(new_url: str) -> None:
    move(new_url, HEAD)
    with opened(new_url) as engine, engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match=f"revision 9999.*knows up to {HEAD}; upgrade Primevo"):
        move(new_url, HEAD)
