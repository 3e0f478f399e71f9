"""Campaigns copied between databases of both kinds."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from primitives.language.text import parse
from search.campaign.controller import Controller
from search.errors import NotFoundError, UsageError
from search.storage import transfer
from search.storage.address import StoreError
from search.storage.models import Pruning
from search.storage.store import Store
from search.study.study import Subject
from tests.postgresql import Server
from tests.search.instant import InstantEvaluator, launch
from tests.search.recorded import PRUNING, ask, connected, everything, rows
from tests.study.known import SEED, study
from workers.spec.outcome import Job, Outcome

ROOT = Path(__file__).parents[2]
KINDS = ["sqlite", "postgresql"]


class Databases:
    """New databases by kind."""

    def __init__(self, folder: Path, request: pytest.FixtureRequest) -> None:
        self._folder, self._request, self._numbers = folder, request, itertools.count(1)

    def new(self, kind: str) -> str:
        if kind == "sqlite":
            return f"sqlite:///{self._folder}/{next(self._numbers)}.db"
        server: Server = self._request.getfixturevalue("postgresql")
        return server.new_database()


@pytest.fixture
def databases(tmp_path: Path, request: pytest.FixtureRequest) -> Databases:
    return Databases(tmp_path, request)


def run_to(store: Store, name: str, last: int | None = None) -> None:
    """Runs the campaign with one worker, up to about that candidate or to its end."""
    evaluator = InstantEvaluator()
    controller = Controller(store, store.campaign(name), evaluator)
    outcome = evaluator._outcome

    def drain_at(job: Job) -> Outcome:
        if last is not None and (job.id >= last or job.test):
            controller.drain()
        return outcome(job)

    evaluator._outcome = drain_at
    controller.run()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """What the campaign records where it is never moved."""
    url = f"sqlite:///{tmp_path_factory.mktemp('whole')}/whole.db"
    with Store.open(url) as store:
        launch(store)
        run_to(store, "test")
    return list(rows(url))


@pytest.mark.parametrize(("there", "back"), [*itertools.product(KINDS, KINDS)])
def test_a_campaign_that_moves_twice_ends_as_one_that_never_did(
    databases: Databases, whole: list[object], there: str, back: str
) -> None:
    """Begun in one database, gone on with in a second one, ended in a third."""
    first, second, third = (databases.new(kind) for kind in ("sqlite", there, back))
    with Store.open(first) as store:
        launch(store)
        run_to(store, "test", 20)
    (copied,) = transfer.copy(first, second).campaigns
    assert (copied.name, copied.candidates) == ("test", len(ask(first, "SELECT 1 FROM candidates")))
    assert everything(second, "test") == everything(first, "test")
    with Store.open(second) as store:
        run_to(store, "test", 40)
    transfer.copy(second, third, "test")
    assert everything(third, "test") == everything(second, "test")
    with Store.open(third) as store:
        run_to(store, "test")
    assert [row[1:] for row in rows(third)] == [row[1:] for row in whole]  # type: ignore[index]


@pytest.mark.parametrize(("source", "target"), [*itertools.permutations(KINDS)])
def test_all_campaigns_beside_those_that_are_there(
    databases: Databases, source: str, target: str
) -> None:
    """The target numbers campaigns itself, and goes on numbering after a copy."""
    old, new = databases.new(source), databases.new(target)
    with Store.open(old) as store:
        for name in ("a", "b", "c"):
            launch(store, name, candidates=10)
            run_to(store, name)
        store.delete(store.campaign("b"))
    with Store.open(new) as store:
        launch(store, "before", candidates=10)
        assert [each.name for each in transfer.copy(old, new).campaigns] == ["a", "c"]
        launch(store, "after", candidates=10)
        run_to(store, "after")
        assert [row.name for row in store.campaigns()] == ["before", "a", "c", "after"]
    for name in ("a", "c"):
        assert everything(new, name) == everything(old, name)


@pytest.mark.parametrize("target", KINDS)
def test_a_name_that_is_taken_stops_the_whole_copy(databases: Databases, target: str) -> None:
    old, new = databases.new("sqlite"), databases.new(target)
    with Store.open(old) as store:
        launch(store, "a", candidates=10)
        launch(store, "b", candidates=10)
    with Store.open(new) as store:
        launch(store, "b", candidates=12)
    before = everything(new, "b")
    with pytest.raises(UsageError, match="has a campaign 'b' already, and nothing was copied"):
        transfer.copy(old, new)
    assert ask(new, "SELECT name FROM campaigns") == [("b",)]
    assert everything(new, "b") == before
    transfer.copy(old, new, "a")
    assert ask(new, "SELECT name FROM campaigns ORDER BY name") == [("a",), ("b",)]


def test_what_is_not_there_cannot_be_copied(databases: Databases, tmp_path: Path) -> None:
    old, new = databases.new("sqlite"), databases.new("sqlite")
    with pytest.raises(NotFoundError, match="no such file"):
        transfer.copy(old, new)
    with Store.open(old) as store:
        launch(store, "first")
    with pytest.raises(NotFoundError, match="no campaign 'frist'; did you mean 'first'"):
        transfer.copy(old, new, "frist")
    assert [each.name for each in tmp_path.iterdir() if each.suffix == ".db"] == ["1.db"]


@pytest.mark.parametrize("target", KINDS)
def test_a_failure_on_the_way_leaves_nothing(databases: Databases, target: str) -> None:
    """The last row of the source is one that no database takes."""
    old, new = databases.new("sqlite"), databases.new(target)
    with Store.open(old) as store:
        launch(store, candidates=30)
        run_to(store, "test")
    with connected(old) as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        connection.exec_driver_sql(
            "UPDATE evaluations SET candidate_id = 99 WHERE sequence = (SELECT max(sequence) FROM "
            "evaluations)"
        )
    with pytest.raises(StoreError, match=r"violates foreign key|FOREIGN KEY constraint failed"):
        transfer.copy(old, new)
    for table in ("campaigns", "candidates", "evaluations"):
        assert ask(new, f"SELECT count(*) FROM {table}") == [(0,)]


COPY = "import sys; from search.storage.transfer import copy; copy(*sys.argv[1:])"
STOP_BEFORE_THE_END = """\
import os, signal, sys
from sqlalchemy import event, Engine
@event.listens_for(Engine, "commit")
def stop(connection):
    if any("inserted" in str(key) for key in connection.info): os.kill(os.getpid(), signal.SIGSTOP)
@event.listens_for(Engine, "before_cursor_execute")
def note(connection, cursor, statement, *others):
    if "INTO evaluations" in statement: connection.info["inserted"] = True
"""


@pytest.mark.parametrize("target", KINDS)
def test_killed_on_the_way_it_leaves_nothing(databases: Databases, target: str) -> None:
    """SIGKILL when every row was sent and none is committed; then the copy is made after all."""
    old, new = databases.new("sqlite"), databases.new(target)
    with Store.open(old) as store:
        launch(store, candidates=30)
        run_to(store, "test")
    with subprocess.Popen(
        [sys.executable, "-c", STOP_BEFORE_THE_END + COPY, old, new], cwd=ROOT
    ) as process:
        deadline = time.monotonic() + 60
        while not stopped(process.pid):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    for table in ("campaigns", "candidates", "evaluations"):
        assert ask(new, f"SELECT count(*) FROM {table}") == [(0,)]
    transfer.copy(old, new)
    assert everything(new, "test") == everything(old, "test")


def stopped(process: int) -> bool:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize("source", KINDS)
def test_one_moment_of_a_campaign_that_goes_on(
    databases: Databases, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """A controller records while the rows are read: the copy has none of that."""
    old, new = databases.new(source), databases.new("sqlite")
    with Store.open(old) as store:
        launch(store, candidates=60)
        run_to(store, "test", 20)
        before = everything(old, "test")
        read = transfer._campaigns

        def go_on(*arguments: Any) -> Any:
            found = read(*arguments)
            run_to(store, "test", 40)
            return found

        monkeypatch.setattr(transfer, "_campaigns", go_on)
        transfer.copy(old, new)
    assert everything(new, "test") == before != everything(old, "test")


@pytest.mark.parametrize(("source", "target"), [*itertools.permutations(KINDS)])
def test_runs_of_studies_come_along_once(databases: Databases, source: str, target: str) -> None:
    """They belong to no campaign: they go with everything, not with one campaign."""
    old, new = databases.new(source), databases.new(target)
    with Store.open(old) as store:
        launch(store, "a", candidates=10)
        made, _ = study(store)
        made.run([Subject.of("a", parse(SEED, d_model=64), made.setting)])
    with Store.open(new):
        told = transfer.copy(old, new, "a")
        assert ask(new, "SELECT count(*) FROM study_runs") == [(0,)]
        assert told.study_runs_left == len(ask(old, "SELECT 1 FROM study_runs")) > 0
    with Store.open(old) as store:
        store.delete(store.campaign("a"))
    statement = "SELECT key, study, dna, val_loss, finished_at FROM study_runs ORDER BY key"
    for new_runs in (len(ask(old, statement)), 0):
        assert transfer.copy(old, new) == transfer.Transfer((), 0, new_runs)
        assert ask(new, statement) == ask(old, statement) != []


@pytest.mark.parametrize(("source", "target"), [*itertools.permutations(KINDS)])
def test_prunings_come_along(databases: Databases, source: str, target: str) -> None:
    """Those of a campaign with it, the others with everything, once; and they go with it."""
    old, new = databases.new(source), databases.new(target)
    with Store.open(old) as store:
        launch(store, "a", candidates=10)
        run_to(store, "a", 5)
        here = store.campaign("a").id
        with store.writing() as connection:
            connection.execute(insert(Pruning), PRUNING | {"campaign_id": here})
            outside = {"campaign_id": None, "candidate_id": None, "key": "o" * 64}
            connection.execute(insert(Pruning), PRUNING | outside)
    told = transfer.copy(old, new, "a", "b")
    assert (told.prunings, told.prunings_left) == (1, 1)
    assert everything(new, "b")[1:] == everything(old, "a")[1:]
    assert len(everything(new, "b")[3]) == 1
    with Store.open(old) as store:
        store.delete(store.campaign("a"))
    for arrived in (1, 0):
        assert transfer.copy(old, new).prunings == arrived
        assert ask(new, "SELECT key FROM prunings ORDER BY key") == [("k" * 64,), ("o" * 64,)]
    with Store.open(new) as store:
        store.delete(store.campaign("b"))
    assert ask(new, "SELECT key FROM prunings") == [("o" * 64,)]
