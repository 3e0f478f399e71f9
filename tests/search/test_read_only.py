"""A database that is opened for reading alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from search.campaign.controller import Controller
from search.campaign.queries import summary
from search.errors import NotFoundError
from search.storage.database import StoreError, open_read_only
from search.storage.schema import HEAD, migrate
from search.storage.store import Store
from tests.search.instant import InstantEvaluator, launch

WRITES = (
    "DELETE FROM evaluations", "UPDATE campaigns SET name = 'mine'", "DROP TABLE study_runs",
    "CREATE TABLE mine (x INTEGER)", "INSERT INTO alembic_version VALUES ('9999')",
)  # fmt: skip


def test_nothing_can_be_written(store: Store, url: str) -> None:
    launch(store, "mine")
    with Store(open_read_only(url)) as looking:
        for write in WRITES:
            with pytest.raises(StoreError), looking.writing() as connection:
                connection.execute(text(write))
        with pytest.raises(StoreError):
            launch(looking, "other")
    assert [row.name for row in store.campaigns()] == ["mine"]


def test_it_shows_what_another_process_writes(store: Store, url: str) -> None:
    with Store(open_read_only(url)) as looking:
        controller = Controller(store, launch(store, "live", candidates=9), InstantEvaluator())
        counts = []
        with controller.opened():
            for _ in range(6):
                controller.step(0.0)
                now = summary(looking, "live")
                counts.append(now.progress.recorded)
                assert now.line.state == "running"
        assert counts == sorted(counts) and counts[0] < counts[-1]
        assert summary(looking, "live").line.state == "interrupted"


def test_an_older_schema_stays(store: Store, url: str) -> None:
    migrate(store._engine, "0003")
    with pytest.raises(StoreError, match=r"revision 0003.*upgrade it by: primevo db upgrade"):
        open_read_only(url)
    with store._engine.connect() as connection:
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    assert found == "0003"
    migrate(store._engine, HEAD)


def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        open_read_only(f"sqlite:///{tmp_path}/none.db")
    assert list(tmp_path.iterdir()) == []
