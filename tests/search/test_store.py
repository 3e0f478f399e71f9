"""The database: opened, migrated, refused, locked, recorded in and read back."""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event

from search.campaign import queries
from search.errors import NotFoundError, PrimevoError, UsageError
from search.report.queries import curves
from search.storage import database
from search.storage.address import StoreError
from search.storage.entries import CopiedEvaluation, Entry, NewCandidate, NewEvaluation
from search.storage.events import Ended, Event, Heartbeat, Proposed
from search.storage.models import Base
from search.storage.schema import HEAD
from search.storage.store import Store
from tests.search.instant import launch, make_config
from tests.search.recorded import ask
from workers.spec.outcome import Budget, Hurdle, Measurement, Outcome

ROOT = Path(__file__).parents[2]

BUDGET = Budget("steps", 175.0, (Hurdle(25.0, 3.5), Hurdle(75.0)))
OUTCOME = Outcome(
    "completed", val_loss=2.5, val_bpb=3.6, params=3_000_000_000, flops_per_token=5,
    step_time_s=0.1, steps=75, tokens=10**10, train_seconds=7.5, setup_seconds=0.5,
    hurdles_passed=1, curve=(Measurement(25, 100, 2.5, 3.0), Measurement(75, 300, 7.5, 2.5)),
    active_params=7, metrics={
        "activation_bytes": 4096, "bytes_per_token": 512, "experts_used": 0.75,
        "experts_unevenness": 0.2, "experts_gate_unevenness": 0.3,
        "experts_max_violation": 1.5, "experts_dropped": 0.1,
    },
)  # fmt: skip


def candidate(id: int, twin: int | None = None) -> NewCandidate:
    event = Proposed(id, id - 1 or None, "insert", f"{twin or id:032x}", twin, {"too long": id})
    return NewCandidate(event, f"program {id}")


def evaluation(sequence: int, id: int, outcome: Outcome = OUTCOME) -> NewEvaluation:
    end = Ended.of(sequence, id, "search", 1000 + id, outcome)
    return NewEvaluation(end, BUDGET, outcome, "host/1")


def copy(sequence: int, id: int, original: int) -> CopiedEvaluation:
    end = Ended.of(sequence, id, "search", 1000 + original, OUTCOME)
    return CopiedEvaluation(end, original)


HISTORY: list[Entry] = [
    candidate(1), candidate(2), evaluation(1, 2), evaluation(2, 1),
    candidate(3, twin=2), copy(3, 3, original=2), candidate(4),
    evaluation(4, 4, Outcome("diverged", "loss is not finite", val_loss=math.nan)),
]  # fmt: skip


def in_order(entries: list[Entry]) -> list[Event]:
    return sorted((entry.event for entry in entries), key=lambda event: isinstance(event, Ended))


def test_what_is_recorded_is_read_back(store: Store) -> None:
    campaign = launch(store)
    store.record(campaign.id, HISTORY[:3])
    store.record(campaign.id, HISTORY[3:])
    assert list(store.events(campaign.id)) == in_order(HISTORY)
    assert store.dna(campaign.id, 3) == "program 3"


def test_campaigns_do_not_mix(store: Store) -> None:
    first, second = launch(store, "a"), launch(store, "b")
    store.record(first.id, HISTORY)
    store.record(second.id, HISTORY[:2])
    assert list(store.events(second.id)) == in_order(HISTORY[:2])
    assert [line.recorded for line in queries.campaigns(store)] == [4, 2]


def test_entries_are_recorded_together_or_not_at_all(store: Store) -> None:
    campaign = launch(store)
    with pytest.raises(StoreError):
        store.record(campaign.id, [candidate(1), candidate(2), candidate(2)])
    with pytest.raises(StoreError):  # an outcome of a candidate that is not there
        store.record(campaign.id, [candidate(1), evaluation(1, 2)])
    assert list(store.events(campaign.id)) == []
    store.record(campaign.id, HISTORY)
    with pytest.raises(StoreError):  # the same run twice
        store.record(campaign.id, [evaluation(5, 2)])


def test_numbers_that_json_has_no_place_for(store: Store) -> None:
    import numpy as np

    campaign = launch(store)
    curve = (Measurement(1, 2, 0.5, math.inf), Measurement(2, 4, 1.0, float(np.float32(2.5))))
    metrics = {"experts_used": np.float32(0.5), "experts_dropped": math.nan, "activation_bytes": 3}
    outcome = replace(
        OUTCOME, val_loss=np.float32(2.5), val_bpb=math.nan, curve=curve, metrics=metrics
    )
    store.record(campaign.id, [candidate(1), evaluation(1, 1, outcome)])
    end = list(store.events(campaign.id))[1]
    assert isinstance(end, Ended)
    assert (end.val_loss, end.val_bpb, end.losses) == (2.5, None, (None, 2.5))
    record = queries.candidate(store, "test", 1)
    assert [record[name] for name in metrics] == [0.5, None, 3]
    assert queries.top(store, "test", by="experts_dropped") == []


def test_losses_of_training_and_the_device_come_back(store: Store) -> None:
    campaign = launch(store)
    outcome = replace(OUTCOME, training=((25, 3.25), (75, math.nan)), device="NVIDIA H200")
    entries = [candidate(1), candidate(2), evaluation(1, 1, outcome), evaluation(2, 2)]
    store.record(campaign.id, entries)
    kept, none = curves(store, "test", [1, 2])
    assert kept.training == ((25, 3.25), (75, None))
    assert none.training == ()
    assert queries.candidate(store, "test", 1)["device"] == "NVIDIA H200"


def test_texts_that_a_database_has_no_place_for(store: Store) -> None:
    campaign = launch(store)
    outcome = Outcome("crashed", "it said \0 and \ud800 and ü and \U0001f600")
    run = replace(evaluation(1, 1, outcome), worker="host\0" + "x" * 300)
    store.record(campaign.id, [candidate(1), run])
    assert store.reason(campaign.id, 1) == "it said \\x00 and \\ud800 and ü and \U0001f600"
    worker = str(queries.candidate(store, "test", 1)["worker"])
    assert worker.startswith("host\\x00xxx") and len(worker) == 200


def test_a_campaign_keeps_the_versions_of_its_plug_ins(store: Store) -> None:
    plugins = [{"name": "mine", "version": "1.2"}]
    made = store.create_campaign("a", make_config().model_dump_json(), 1, plugins)
    assert made == store.campaign("a") and made.plugins == plugins
    assert list(launch(store, "b").plugins) == []


def test_a_name_that_exists_is_refused(store: Store) -> None:
    launch(store, "mine")
    with pytest.raises(UsageError, match=r"campaign 'mine' exists.*primevo resume mine"):
        launch(store, "mine")
    assert len(store.campaigns()) == 1


def test_a_name_that_does_not_exist(store: Store) -> None:
    launch(store, "first-run")
    with pytest.raises(NotFoundError, match="no campaign 'frist-run'; did you mean 'first-run'"):
        store.campaign("frist-run")


def test_only_one_holder(store: Store, url: str) -> None:
    campaign, other = launch(store), launch(store, "other")
    assert not store.running(campaign.id)
    with store.holding(campaign), Store.open(url) as second:
        store.beat(campaign.id, Heartbeat(1.0, 1, 2, "", None, "box", 42))
        assert second.running(campaign.id)
        with pytest.raises(StoreError, match="'test' is being run by process 42 on box"):
            second.holding(campaign).__enter__()
        with second.holding(other):
            pass
    assert not store.running(campaign.id)
    with store.holding(campaign):
        pass


def test_a_killed_holder_holds_nothing(store: Store, url: str) -> None:
    campaign = launch(store)
    code = (
        "import sys, time; from search.storage.store import Store\n"
        "store = Store.open(sys.argv[1])\n"
        "with store.holding(store.campaign('test')): print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, url], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert store.running(campaign.id)
        process.kill()
    deadline = time.monotonic() + 10
    while store.running(campaign.id) and time.monotonic() < deadline:
        time.sleep(0.02)
    with store.holding(campaign):
        assert store.running(campaign.id)


def test_whoever_loses_the_connection_cannot_record(postgresql_url: str) -> None:
    """The server ends the holder's session, as a cut in the network does; another one goes on."""
    end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
    with Store.open(postgresql_url) as first, Store.open(postgresql_url) as second:
        campaign = launch(first)
        with first.holding(campaign):
            first.record(campaign.id, HISTORY[:1])
            assert ask(postgresql_url, end) == [(True,)]
            with pytest.raises(StoreError, match="connection"):
                first.record(campaign.id, HISTORY[1:2])
            with second.holding(campaign):
                second.record(campaign.id, HISTORY[1:2])
            with pytest.raises(StoreError, match="run campaign 'test'; go on by: primevo resume"):
                first.record(campaign.id, HISTORY[2:3])
        assert list(first.events(campaign.id)) == in_order(HISTORY[:2])
        with first.holding(campaign):
            first.record(campaign.id, HISTORY[2:3])


def test_a_failure_inside_gives_the_lease_back(store: Store) -> None:
    campaign = launch(store)
    with pytest.raises(ZeroDivisionError), store.holding(campaign):
        _ = 1 / 0
    assert not store.running(campaign.id)
    with store.holding(campaign):
        with pytest.raises(StoreError, match="this process is running campaign 'test'"):
            store.holding(campaign).__enter__()
        assert store.running(campaign.id)
    assert not store.running(campaign.id)


def test_stop_is_asked_for_and_forgotten(store: Store) -> None:
    campaign = launch(store)
    assert not store.request_stop(campaign.id)
    with store.holding(campaign):
        assert store.request_stop(campaign.id)
        assert store.stop_requested(campaign.id)
    with store.holding(campaign):
        assert not store.stop_requested(campaign.id)


def test_the_migrations_make_the_models(store: Store) -> None:
    with store._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_head_is_the_newest_revision() -> None:
    config = Config()
    config.set_main_option("script_location", "search.storage:migrations")
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


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


def test_no_query_scans_a_table(tmp_path: Path) -> None:
    """Everything asked of a campaign is answered through an index."""
    with Store.open(f"sqlite:///{tmp_path}/a.db") as store:
        campaign = launch(store)
        store.record(campaign.id, HISTORY)
        asked: list[tuple[str, object]] = []

        @event.listens_for(store._engine, "before_cursor_execute")
        def note(connection, cursor, statement, parameters, context, executemany):  # type: ignore[no-untyped-def]
            asked.append((statement, parameters))

        list(store.events(campaign.id))
        store.record(campaign.id, [candidate(5, twin=2), copy(5, 5, original=2)])
        queries.summary(store, "test")
        queries.top(store, "test")
        queries.candidate(store, "test", 2)
        queries.program(store, "test", 2)
        queries.lineage(store, "test", 4)
        store.stop_requested(campaign.id)
        plans = {}
        raw = sqlite3.connect(tmp_path / "a.db")
        for statement, parameters in list(asked):
            rows = raw.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)  # type: ignore[arg-type]
            plans[statement] = [row[3] for row in rows]
    scans = {
        statement: plan
        for statement, plan in plans.items()
        if any("SCAN candidates" in step or "SCAN evaluations" in step for step in plan)
    }
    assert len(plans) > 8
    assert scans == {}


def test_records_have_the_promised_keys(store: Store) -> None:
    campaign = launch(store)
    store.record(campaign.id, [*HISTORY, candidate(5)])
    record = queries.candidate(store, "test", 2)
    assert tuple(record) == queries.record_fields()
    assert record == {
        "id": 2, "parent_id": 1, "mutation": "insert", "outcome": "completed", "reason": "",
        "fitness": 2.5, "val_loss": 2.5, "val_bpb": 3.6, "val_perplexity": math.exp(2.5),
        "params": 3_000_000_000, "active_params": 7, "flops_per_token": 5, "step_time_s": 0.1,
        "activation_bytes": 4096, "bytes_per_token": 512, "experts_used": 0.75,
        "experts_unevenness": 0.2, "experts_gate_unevenness": 0.3,
        "experts_max_violation": 1.5, "experts_dropped": 0.1, "train_seconds": 7.5,
        "setup_seconds": 0.5, "steps": 75, "tokens": 10**10, "hash": f"{2:032x}",
        "worker": "host/1", "device": None,
    }  # fmt: skip
    twin = queries.candidate(store, "test", 3)
    assert (twin["fitness"], twin["worker"], twin["reason"]) == (2.5, None, "same program as 2")
    failed = queries.candidate(store, "test", 4)
    assert (failed["outcome"], failed["fitness"], failed["val_loss"]) == ("diverged", None, None)
    pending = queries.candidate(store, "test", 5)
    assert (pending["outcome"], pending["fitness"]) == (None, None)


def test_top_lineage_and_program(store: Store) -> None:
    campaign = launch(store)
    store.record(campaign.id, HISTORY)
    assert [record["id"] for record in queries.top(store, "test")] == [1, 2]
    assert [record["id"] for record in queries.top(store, "test", 1, by="val_bpb")] == [1]
    assert [record["id"] for record in queries.lineage(store, "test", 4)] == [1, 2, 3, 4]
    assert queries.program(store, "test", 4) == "program 4"
    with pytest.raises(UsageError, match=r"unknown field 'fitnes'.*did you mean 'fitness'"):
        queries.top(store, "test", by="fitnes")


@pytest.mark.parametrize("id", [0, 5, -1, 2**31, 2**70])
def test_a_candidate_that_does_not_exist(store: Store, id: int) -> None:
    campaign = launch(store)
    store.record(campaign.id, HISTORY)
    for query in (queries.candidate, queries.program, queries.lineage):
        with pytest.raises(NotFoundError, match=f"no candidate {id}; it has 1 to 4"):
            query(store, "test", id)
