"""Ask and tell: the caller evaluates, and the campaign is the one that workers would have run."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from search.campaign import queries
from search.campaign.asking import Asking
from search.campaign.controller import Controller
from search.campaign.endings import why_stopped
from search.campaign.replay import replay
from search.errors import PrimevoError, UsageError
from search.storage.database import StoreError
from search.storage.store import Store
from tests.search.instant import InstantEvaluator, launch, outcome_of
from tests.search.recorded import evaluations, rows
from tests.search.test_controller import ROOT
from workers.spec.outcome import Job, Outcome


def told(asking: Asking, job: Job) -> None:
    asking.tell((job.id, job.seed), outcome_of(job), "instant/1")


def finish(asking: Asking, count: int) -> int:
    """Asks for `count` at a time, and tells them in the order in which they came."""
    asked = 0
    while jobs := asking.ask(count):
        assert len(jobs) <= count
        asked += len(jobs)
        for job in jobs:
            told(asking, job)
    return asked


def test_it_makes_the_rows_that_a_run_makes(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/run.db") as store:
        evaluator = InstantEvaluator()
        Controller(store, launch(store), evaluator).run()
    with Store.open(f"sqlite:///{tmp_path}/asked.db") as store:
        with Asking(store, launch(store)) as asking:
            assert finish(asking, 1) == len(evaluator.submitted)
            assert asking.progress().phase == "done"
        assert queries.campaigns(store)[0].state == "finished"
        assert replay(store, "test").difference is None
    assert rows(f"sqlite:///{tmp_path}/asked.db") == rows(f"sqlite:///{tmp_path}/run.db")


def test_children_of_what_is_not_recorded_yet(tmp_path: Path) -> None:
    """A duplicate has its outcome at once and may breed in the step that proposed it, after many
    others were proposed."""
    with Store.open(f"sqlite:///{tmp_path}/many.db") as store:
        campaign = launch(store, candidates=130, population=3, tournament=2)
        with Asking(store, campaign) as asking:
            finish(asking, 60)
            assert asking.progress().duplicates


def test_many_may_be_asked_at_once_and_told_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "many.db"
    with Store.open(f"sqlite:///{path}") as store, Asking(store, launch(store)) as asking:
        (seed,) = asking.ask(7)
        assert asking.ask(7) == [], "children need the seed program's outcome"
        told(asking, seed)
        jobs = asking.ask(7)
        assert [job.id for job in jobs] == list(range(2, 9))
        for job in reversed(jobs):
            told(asking, job)
        found = [row[2] for row in evaluations(f"sqlite:///{path}")]
        assert found == [1, *range(8, 1, -1)]
        finish(asking, 7)
        assert asking.progress().phase == "done"
        assert asking.ask() == []


def test_what_is_told_is_recorded_at_once(tmp_path: Path) -> None:
    path = tmp_path / "once.db"
    with Store.open(f"sqlite:///{path}") as store, Asking(store, launch(store)) as asking:
        for count in range(1, 6):
            (job,) = asking.ask()
            told(asking, job)
            found = sqlite3.connect(path).execute("SELECT count(*) FROM evaluations").fetchone()
            assert found == (count,)


def test_a_stranger_and_a_second_outcome_are_refused(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/x.db") as store, Asking(store, launch(store)) as asking:
        (job,) = asking.ask()
        with pytest.raises(UsageError, match=r"candidate 9 \(seed 0\) waits .* not told: 1"):
            asking.tell((9, 0), outcome_of(job))
        told(asking, job)
        with pytest.raises(UsageError, match="not told: none"):
            told(asking, job)
        assert asking.progress().trained == 1


def test_it_holds_the_campaign(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/x.db") as store:
        campaign = launch(store)
        with Asking(store, campaign):
            with (
                pytest.raises(StoreError, match="running campaign 'test'"),
                Asking(store, campaign),
            ):
                pass
            assert queries.campaigns(store)[0].state == "running"
        assert queries.campaigns(store)[0].state == "interrupted"
        assert why_stopped(store.campaign("test")) == "it was closed before its end"


def test_seeds_that_cannot_be_trained_are_told(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/x.db") as store, Asking(store, launch(store)) as asking:
        (job,) = asking.ask()
        with pytest.raises(PrimevoError, match=r"candidate 1: out_of_memory \(too large\)"):
            asking.tell((job.id, job.seed), Outcome("out_of_memory", reason="too large"))
    with Store.open(f"sqlite:///{tmp_path}/x.db") as store:
        assert queries.candidate(store, "test", 1)["outcome"] == "out_of_memory"


DIES = """
import os, signal, sys
from search.campaign.asking import Asking
from search.storage.store import Store
from tests.search.instant import launch, outcome_of
with Store.open(sys.argv[1]) as store, Asking(store, launch(store)) as asking:
    for _ in range(9):
        (job,) = asking.ask()
        asking.tell((job.id, job.seed), outcome_of(job), "instant/1")
    asking.ask()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_while_a_candidate_is_out_it_goes_on_as_if_uninterrupted(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/killed.db"
    process = subprocess.run([sys.executable, "-c", DIES, url], cwd=ROOT)
    assert process.returncode == -signal.SIGKILL
    before = rows(f"sqlite:///{tmp_path}/killed.db")
    with Store.open(url) as store, Asking(store, store.campaign("test")) as asking:
        finish(asking, 1)
    with Store.open(f"sqlite:///{tmp_path}/run.db") as store:
        Controller(store, launch(store), InstantEvaluator()).run()
    after = rows(f"sqlite:///{tmp_path}/killed.db")
    assert set(before) < set(after)
    assert after == rows(f"sqlite:///{tmp_path}/run.db")
