"""Databases that are opened: with which settings, and which are refused and left alone."""

from __future__ import annotations

import multiprocessing
import os
import random
import sqlite3
from pathlib import Path

import pytest

from search.errors import NotFoundError, PrimevoError, UsageError
from search.storage import database
from search.storage.address import StoreError
from search.storage.schema import HEAD
from search.storage.store import Store
from tests.search.entries import HISTORY, candidate, evaluation
from tests.search.instant import launch


def test_sqlite_settings(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/a.db") as store, store.reading() as connection:
        values = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert values == {
        "journal_mode": "wal", "synchronous": 1, "foreign_keys": 1, "busy_timeout": 30000,
    }  # fmt: skip


@pytest.mark.parametrize(("asked", "found"), [("normal", 1), ("full", 2), ("extra", 3)])
def test_a_sqlite_url_says_what_a_commit_waits_for(tmp_path: Path, asked: str, found: int) -> None:
    url = f"sqlite:///{tmp_path}/a.db?synchronous={asked}"
    with Store.open(url) as store:
        launch(store)
        with store.writing() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == found
        with store.holding(store.campaign("test")):
            assert store.running(1)
    with Store.open(url, create=False) as store:
        assert len(store.campaigns()) == 1
    assert os.listdir(tmp_path) == ["a.db"]


def test_a_power_cut_leaves_whole_transactions(tmp_path: Path) -> None:
    """What of the log had reached the disk ends anywhere: the campaign is there up to one of its
    transactions, and goes on from it to the same end."""
    rng = random.Random(1)
    with Store.open(f"sqlite:///{tmp_path}/a.db") as store:
        campaign = launch(store)
        writer = sqlite3.connect(tmp_path / "a.db")  # keeps the log from being cleared at the end
        writer.execute("SELECT * FROM campaigns").fetchone()
        for number in range(1, 41):
            store.record(campaign.id, [candidate(number), evaluation(number, number)])
        log = (tmp_path / "a.db-wal").read_bytes()
        whole = list(store.events(campaign.id))
        counts = set()
        for turn in range(12):
            cut = tmp_path / f"{turn}.db"
            cut.write_bytes((tmp_path / "a.db").read_bytes())
            Path(f"{cut}-wal").write_bytes(log[: rng.randrange(len(log))])
            with Store.open(f"sqlite:///{cut}") as after:
                events = list(after.events(1)) if after.campaigns() else []
                count = len(events) // 2
                assert events == whole[:count] + whole[40 : 40 + count]
                counts.add(count)
        writer.close()
    assert len(counts) > 4


def open_and_launch(url: str, number: int) -> None:
    with Store.open(url) as store:
        launch(store, f"campaign-{number}")


def test_processes_may_open_a_new_database_at_once(new_url: str) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=open_and_launch, args=(new_url, n)) for n in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 6
    with Store.open(new_url) as store:
        assert len(store.campaigns()) == 6


def make(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_a_foreign_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    make(path, "CREATE TABLE orders (id INTEGER)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"not a Primevo database \(it has the tables orders\)"):
        Store.open(f"sqlite:///{path}")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["shop.db"]


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    Store.open(f"sqlite:///{path}").close()
    make(path, "UPDATE alembic_version SET version_num = '9999'")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=f"revision 9999.*knows up to {HEAD}; upgrade Primevo"):
        Store.open(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary, " * 100)
    with pytest.raises(StoreError, match=r"notes.txt: not a SQLite database"):
        Store.open(f"sqlite:///{path}")
    assert path.read_text() == "dear diary, " * 100


def test_a_damaged_database(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Store.open(f"sqlite:///{path}") as store:
        store.record(launch(store).id, HISTORY)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"a\.db"), Store.open(f"sqlite:///{path}") as store:
        store.campaigns()


def test_a_locked_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.05)
    path = tmp_path / "a.db"
    with Store.open(f"sqlite:///{path}") as store:
        campaign = launch(store)
        blocker = sqlite3.connect(path)
        blocker.execute("BEGIN IMMEDIATE")
        assert store.campaign("test") == campaign  # readers do not wait
        with pytest.raises(StoreError, match="locked by another program"):
            store.record(campaign.id, [candidate(1)])
        blocker.rollback()
        store.record(campaign.id, [candidate(1)])


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("sqlite:///missing/a.db", StoreError, "the folder missing does not exist"),
        ("sqlite://", UsageError, "keeps nothing"),
        ("sqlite:///:memory:", UsageError, "keeps nothing"),
        ("primevo.db", UsageError, "not a database URL"),
        ("nosuch://host/db", UsageError, "in SQLite or PostgreSQL, not in nosuch; write e.g."),
        ("postgres://host/db", UsageError, "not in postgres; write e.g. .*postgresql://user@host"),
        (
            "mysql+pymysql://me:secret@host/db",
            UsageError,
            r"mysql\+pymysql://me:\*\*\*@host/db: camp",
        ),
        ("postgresql+psycopg2://host/db", UsageError, "write postgresql:// in place of"),
        ("sqlite+aiosqlite:///a.db", UsageError, "write sqlite:// in place of"),
        ("postgresql://host", UsageError, "names no database"),
        ("sqlite:///a.db?mode=ro", UsageError, "'mode' is not an option; there is: synchronous"),
        ("sqlite:///a.db?synchronous=off", UsageError, "off is not one of normal, full, extra"),
    ],
)
def test_urls_that_do_not_work(
    url: str,
    error: type[PrimevoError],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        Store.open(url)
    assert os.listdir(tmp_path) == []


def test_reading_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        Store.open(f"sqlite:///{tmp_path}/none.db", create=False)
    assert os.listdir(tmp_path) == []
