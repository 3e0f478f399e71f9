"""Databases of earlier versions: opened, read and gone on with."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from primitives.language.text import parse, render
from primitives.programs.seeds import load_seed
from search.campaign import queries
from search.campaign.controller import Controller
from search.storage.events import Ended
from search.storage.schema import HEAD
from search.storage.store import Store
from tests.search.instant import InstantEvaluator, make_config

DUMP = Path(__file__).with_name("first_version.sql")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The dump as a database file."""
    path = tmp_path / "first.db"
    connection = sqlite3.connect(path)
    connection.executescript(DUMP.read_text(encoding="utf-8"))
    connection.close()
    return path


def raw(path: Path, statement: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    found = connection.execute(statement).fetchall()
    connection.close()
    return found


RUNS = (
    "SELECT sequence, candidate_id, kind, seed, unit, amount, hurdles, outcome, val_loss, curve, "
    "active_params, worker FROM evaluations WHERE sequence <= 15 ORDER BY sequence"
)


def test_every_row_is_still_there_and_can_be_read(path: Path) -> None:
    before = raw(path, RUNS)
    (said,) = raw(path, "SELECT routing FROM evaluations WHERE routing IS NOT NULL")
    assert said[0] == (
        '{"used": 1.0, "unevenness": 0.4725901441450413, "max_violation": 2.5, "dropped": 0.0}'
    )
    with Store.open(f"sqlite:///{path}") as store:
        assert raw(path, RUNS) == before and len(before) == 15
        assert raw(path, "SELECT version_num FROM alembic_version") == [(HEAD,)]
        records = [queries.candidate(store, "first", id) for id in range(1, 16)]
        for record in records:
            parse(queries.program(store, "first", int(record["id"] or 0)))
        assert {tuple(record) for record in records} == {queries.record_fields()}
        switch, dense = records[1], records[0]
        told = {name: switch[name] for name in switch if name.startswith("experts_")}
        assert [value for value in told.values() if value is not None] == [
            1.0, 0.4725901441450413, 2.5, 0.0,
        ]  # fmt: skip
        assert (dense["experts_used"], dense["activation_bytes"]) == (None, None)
        assert [row["id"] for row in queries.top(store, "first", by="experts_used")] == [2]
        assert queries.top(store, "first", 1)[0]["id"] == 15
        summary = queries.summary(store, "first")
        assert (summary.line.state, summary.progress.recorded) == ("interrupted", 15)
        assert store.campaign("first").plugins == ()


def test_the_campaign_resumes_to_its_end(path: Path) -> None:
    with Store.open(f"sqlite:///{path}") as store:
        before = raw(path, RUNS)
        shown = Controller(store, store.campaign("first"), InstantEvaluator()).run()
        assert (shown.phase, shown.recorded, shown.finals_done) == ("done", 24, 4)
        assert raw(path, RUNS) == before
        assert len(list(store.events(1))) == 24 + 24 + 4


def test_a_database_of_the_very_first_revision(tmp_path: Path) -> None:
    """Rows as they were written before there were experts, with no column for them."""
    path = tmp_path / "0001.db"
    config = Config()
    config.set_main_option("script_location", "search.storage:migrations")
    with create_engine(f"sqlite:///{path}").begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql(
            "INSERT INTO campaigns (id, name, config, seed, created_at, stop_requested) "
            "VALUES (1, 'old', ?, 1, 1.5, 0)",
            (make_config(candidates=10).model_dump_json(),),
        )
        connection.exec_driver_sql(
            "INSERT INTO candidates VALUES (1, 1, NULL, 'seed', ?, NULL, '{}', ?, 1.5)",
            ("ab" * 16, render(load_seed("transformer"))),
        )
        connection.exec_driver_sql(
            "INSERT INTO evaluations VALUES (1, 1, 1, 'search', 7, 'steps', 175.0, "
            "'[[25.0, null], [75.0, null]]', 2, 'completed', '', 2.5, 3.6, NULL, NULL, 100, 200, "
            "0.1, 175, 1000, 17.5, 0.5, '[[25, 10, 2.5, 3.0], [75, 30, 7.5, 2.75], "
            "[175, 1000, 17.5, 2.5]]', 'host/1', 2.5)"
        )
    with Store.open(f"sqlite:///{path}") as store:
        end = list(store.events(1))[1]
        assert isinstance(end, Ended) and (end.val_loss, end.losses) == (2.5, (3.0, 2.75, 2.5))
        record = queries.candidate(store, "old", 1)
        assert (record["fitness"], record["active_params"], record["experts_used"]) == (
            2.5, None, None,
        )  # fmt: skip
        assert Controller(store, store.campaign("old"), InstantEvaluator()).run().phase == "done"
