"""`integrity.check`: sound databases are sound, and each kind of damage is one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from search.campaign import integrity
from search.campaign.controller import Controller
from search.errors import NotFoundError
from search.storage import schema
from search.storage.database import connect
from search.storage.store import Store
from search.storage.transfer import copy
from tests.search.instant import InstantEvaluator, launch
from tests.search.recorded import connected


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a database with a finished campaign and one that was cut off."""
    url = f"sqlite:///{tmp_path_factory.mktemp('sound')}/sound.db"
    with Store.open(url) as store:
        Controller(store, launch(store, candidates=30), InstantEvaluator(2)).run()
        campaign = launch(store, "pending", candidates=30)
        with pytest.raises(RuntimeError):
            Controller(store, campaign, Breaking(3)).run()
    return url


@pytest.fixture
def played(sound: str, url: str) -> str:
    """Those campaigns in a database of each kind."""
    copy(sound, url)
    return url


class Breaking(InstantEvaluator):
    def wait(self, timeout_s: float):  # type: ignore[no-untyped-def]
        if len(self.submitted) > 8:
            raise RuntimeError("the cluster is gone")
        return super().wait(timeout_s)


def damage(url: str, *statements: str) -> None:
    """Changes rows behind the back of every constraint."""
    with connected(url) as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        else:
            connection.exec_driver_sql("SET session_replication_role = replica")
        for statement in statements:
            connection.execute(text(statement))


def found(url: str) -> list[str]:
    return integrity.check(url).findings


def test_a_sound_database(played: str) -> None:
    verdict = integrity.check(played)
    assert verdict.findings == []
    assert (verdict.campaigns, verdict.evaluations > 36) == (2, True)
    assert 30 < verdict.candidates < 60


@pytest.mark.parametrize(
    ("statement", "parts"),
    [
        ("UPDATE campaigns SET config = substr(config, 1, 90) WHERE id = 1",
         ("campaign 'test': its stored config cannot be read",)),
        ("UPDATE candidates SET dna = replace(dna, 'ADD', 'A=D') WHERE campaign_id = 1 AND id = 7",
         ("campaign 'test'", "candidate 7", "program cannot be read")),
        ("UPDATE candidates SET dna = replace(dna, 'c1=0.3', 'c1=0.4') WHERE campaign_id = 1 AND"
         " id = 1", ("campaign 'test'", "candidate 1", "its program has the hash", "is recorded")),
        ("UPDATE candidates SET id = 99 WHERE campaign_id = 2 AND id = 7",
         ("campaign 'pending'", "candidate 8 comes after 6")),
        ("UPDATE candidates SET parent_id = 29 WHERE campaign_id = 1 AND id = 5",
         ("candidate 5: its parent 29 is not an earlier one",)),
        ("UPDATE candidates SET parent_id = 300 WHERE campaign_id = 1 AND id = 5",
         ("candidates: row 5 of campaign 1 refers by", "parent_id")),
        ("UPDATE evaluations SET candidate_id = 99 WHERE campaign_id = 1 AND sequence = 3",
         ("evaluations: row 3 of campaign 1 refers by", "candidate_id")),
        ("UPDATE evaluations SET candidate_id = 2 WHERE campaign_id = 1 AND sequence = 6",
         ("campaign 'test': its log cannot be replayed",)),
        ("UPDATE evaluations SET sequence = 900 WHERE campaign_id = 1 AND sequence = 6",
         ("campaign 'test'", "endings are numbered 1 to 900")),
        ("UPDATE evaluations SET outcome = 'bored' WHERE campaign_id = 1 AND sequence = 4",
         ("ending 4", "'bored' is no outcome")),
        ("UPDATE evaluations SET val_loss = NULL WHERE campaign_id = 1 AND sequence = 1",
         ("ending 1 (candidate 1): completed, and without a validation loss",)),
        ("UPDATE evaluations SET hurdles_passed = 9 WHERE campaign_id = 1 AND sequence = 1",
         ("ending 1", "passed 9 of 2 hurdles")),
        ("UPDATE campaigns SET finished_at = 1.5 WHERE id = 2",
         ("campaign 'pending': it says that it is finished, and its log ends in phase search",)),
        ("DELETE FROM campaigns WHERE id = 2",
         ("candidates: row 1 of campaign 2 refers by campaign_id to what is not in campaigns",)),
    ],
)  # fmt: skip
def test_each_kind_of_damage_is_named(played: str, statement: str, parts: tuple[str, ...]) -> None:
    damage(played, statement)
    lines = found(played)
    assert any(all(part in line for part in parts) for line in lines), lines
    assert all("\n" not in line for line in lines)


@pytest.mark.parametrize(
    ("statement", "part"),
    [
        ("ALTER TABLE evaluations RENAME COLUMN reason TO why", "reason"),
        ("DROP INDEX ix_evaluations_rank", "ix_evaluations_rank"),
    ],
)
def test_a_schema_that_was_changed_by_hand(new_url: str, statement: str, part: str) -> None:
    Store.open(new_url).close()
    damage(new_url, statement)
    assert any(line.startswith("schema: ") and part in line for line in found(new_url))


def test_an_older_schema_is_one_finding_and_stays(url: str) -> None:
    with Store.open(url):
        pass
    engine = connect(url, create=False)
    schema.migrate(engine, "0002")
    try:
        (line,) = found(url)
        assert "revision 0002, and the newest is" in line and "primevo db upgrade" in line
        with engine.connect() as connection:
            assert schema.revision(connection) == "0002"
    finally:
        schema.migrate(engine, schema.HEAD)
        engine.dispose()


@pytest.mark.parametrize(("place", "said"), [(-4096, "damaged; restore a copy"), (-2000, "file: ")])
def test_bytes_that_were_overwritten(sound: str, tmp_path: Path, place: int, said: str) -> None:
    """A page whose head is gone, and one whose rows are."""
    with connected(sound) as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(Path(make_url(sound).database or "").read_bytes())
    content[place : place + 1900] = bytes(1900)
    path = tmp_path / "a.db"
    path.write_bytes(content)
    lines = found(f"sqlite:///{path}")
    assert any(said in line for line in lines), lines


def test_what_is_not_there_is_not_sound(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        integrity.check(f"sqlite:///{tmp_path}/none.db")
