"""The loop: what it records before it acts, what it survives, what it refuses."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.campaign import queries
from search.campaign.controller import Controller
from search.campaign.gates import Rules
from search.campaign.progress import Progress
from search.campaign.proposal import ProgramCache, Proposal, propose
from search.config.schema import BudgetSpec
from search.errors import PrimevoError, UsageError
from search.storage.address import StoreError
from search.storage.events import Heartbeat
from search.storage.store import Store
from tests.search.instant import InstantEvaluator, launch, make_config, outcome_of
from tests.search.recorded import Row, ask, evaluations, rows
from workers.spec.outcome import Budget, Job, Outcome, Report

ROOT = Path(__file__).parents[2]


def run(store: Store, evaluator: InstantEvaluator | None = None, **settings: Any) -> Progress:
    return Controller(store, launch(store, **settings), evaluator or InstantEvaluator()).run()


Rows = list[Row]

on_sqlite_and_with_faults_on_postgresql = pytest.mark.parametrize(
    "url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.faults)], indirect=True
)
"""For tests that start processes, which takes seconds."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """What one worker records of the campaign when nothing interrupts it."""
    url = f"sqlite:///{tmp_path_factory.mktemp('whole')}/whole.db"
    with Store.open(url) as store:
        run(store)
    return rows(url)


def test_a_campaign_from_seed_to_final_table(store: Store) -> None:
    evaluator = InstantEvaluator(capacity=3)
    shown = run(store, evaluator, candidates=80)
    assert (shown.phase, shown.recorded, shown.pending) == ("done", 80, 0)
    assert shown.trained + shown.duplicates == 80
    assert shown.finals_done == shown.finals_planned == 6
    assert len(evaluator.submitted) == shown.trained + 6
    assert shown.best is not None and shown.seed is not None and shown.seed.id == 1
    assert shown.best.fitness < shown.seed.fitness
    assert shown.gain == pytest.approx(shown.seed.val_bpb - shown.best.val_bpb)  # type: ignore[operator]
    summary = queries.summary(store, "test")
    assert summary.progress == shown
    assert summary.line.state == "finished" and summary.line.finished_at is not None
    assert sorted(row.is_seed for row in summary.final) == [False, False, True]
    best = queries.top(store, "test", 1)[0]
    assert (best["id"], best["fitness"]) == (shown.best.id, shown.best.fitness)
    assert queries.lineage(store, "test", shown.best.id)[0]["mutation"] == "seed"


def test_the_final_phase(store: Store) -> None:
    evaluator = InstantEvaluator(capacity=2)
    run(store, evaluator, candidates=30)
    finals = [job for job in evaluator.submitted if job.test]
    limit = make_config().workers.timeout_s
    assert evaluator.submitted[-6:] == finals
    assert {job.budget for job in finals} == {
        Budget("steps", 175.0, points=(25.0, 75.0), time_limit_s=limit)  # stopped nowhere
    }
    seeds = {job.seed for job in finals}
    assert len(seeds) == 2 and seeds.isdisjoint(j.seed for j in evaluator.submitted if not j.test)
    ids = {job.id for job in finals}
    assert 1 in ids and len(ids) == 3
    assert {(job.id, job.seed) for job in finals} == {(id, seed) for id in ids for seed in seeds}
    kept = [Path(job.weights) for job in finals if job.weights]
    assert sorted(int(path.stem) for path in kept) == sorted(ids), "one run each keeps its weights"
    assert all(path.parent.name == "test" and path.is_absolute() for path in kept)
    assert all(outcome.test_loss is None for outcome in map(outcome_of, evaluator.submitted[:30]))


def test_one_worker_gives_the_same_campaign_again(store: Store, url: str, tmp_path: Path) -> None:
    run(store, candidates=60, seed=7)
    for name, seed in (("a", 7), ("b", 8)):
        other = f"sqlite:///{tmp_path}/{name}.db"
        with Store.open(other) as again:
            run(again, candidates=60, seed=seed)
        assert (rows(other) == rows(url)) == (seed == 7)


def test_duplicates_are_not_trained(store: Store, url: str) -> None:
    evaluator = InstantEvaluator()
    shown = run(store, evaluator, candidates=120, mutations={"delete": 1.0})
    assert shown.duplicates > 10
    assert len({job.dna for job in evaluator.submitted if not job.test}) == shown.trained
    twins = ask(
        url,
        "SELECT c.hash = o.hash, d.outcome = e.outcome, d.val_loss IS NOT DISTINCT FROM e.val_loss,"
        " d.worker FROM candidates c JOIN candidates o ON o.id = c.duplicate_of "
        "JOIN evaluations d ON d.candidate_id = c.id AND d.kind = 'search' "
        "JOIN evaluations e ON e.candidate_id = o.id AND e.kind = 'search'",
    )
    assert twins == [(1, 1, 1, None)] * shown.duplicates
    assert shown.saved_by_duplicates > 0


@pytest.mark.parametrize(("rule", "free", "judged"), [("median", 5, 8), ("top", 2, 2)])
def test_hurdles_are_set_by_what_was_seen_and_never_stop_a_seed(
    store: Store, rule: Any, free: int, judged: int
) -> None:
    evaluator = InstantEvaluator()
    budget = BudgetSpec(unit="steps", base=25.0, hurdles=2, rule=rule)
    seeds = ("transformer", "primer_ez")
    shown = run(store, evaluator, candidates=60, seeds=seeds, budget=budget)
    search = [job for job in evaluator.submitted if not job.test]
    assert all(len(job.budget.hurdles) == 2 for job in search)
    assert all(bar.threshold is None for job in search[:free] for bar in job.budget.hurdles)
    assert all(job.budget.hurdles[0].threshold is not None for job in search[judged:])
    assert shown.stopped_at[0] > 10 and shown.stopped_at[1] > 3
    full = 175.0 * shown.outcomes["completed"]
    assert shown.spent + shown.saved_by_hurdles == full
    assert shown.saved_by_hurdles > 0.3 * full
    assert shown.children == shown.trained - 2
    assert shown.reached[0] == shown.children - shown.outcomes["diverged"]
    assert shown.reached[1] == shown.went_on[0] == shown.reached[0] - shown.stopped_at[0]
    assert shown.in_full == (shown.went_on[1] / shown.children, 0.25)


class Watched(InstantEvaluator):
    """Looks into the database, as another process would, when it is given a job."""

    def __init__(self, url: str) -> None:
        super().__init__(capacity=2)
        self.url = url

    def submit(self, job: Job) -> None:
        found = ask(self.url, "SELECT dna FROM candidates WHERE id = :id", id=job.id)
        assert found == [(job.dna,)]
        super().submit(job)


def test_a_candidate_is_recorded_before_it_is_dispatched(store: Store, url: str) -> None:
    run(store, Watched(url), candidates=25)


class Breaking(InstantEvaluator):
    """Fails, as a lost cluster would, after some outcomes."""

    def wait(self, timeout_s: float) -> list[Report]:
        if len(self.submitted) > 20:
            raise RuntimeError("the cluster is gone")
        return super().wait(timeout_s)


def test_an_error_loses_nothing_that_came_back(store: Store, url: str) -> None:
    campaign = launch(store)
    with pytest.raises(RuntimeError, match="the cluster is gone"):
        Controller(store, campaign, Breaking(capacity=3)).run()
    before = rows(url)
    assert queries.summary(store, "test").progress.pending == 3
    shown = Controller(store, campaign, InstantEvaluator(3)).run()
    assert (shown.phase, shown.recorded) == ("done", 60)
    assert set(before) <= set(rows(url))


def test_what_was_collected_is_kept_when_no_child_can_be_proposed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stuck(rules: Rules, programs: ProgramCache, rng: random.Random) -> Proposal:
        if rules.state.candidates >= 10:
            raise PrimevoError("no child passed the gates")
        return propose(rules, programs, rng)

    monkeypatch.setattr("search.campaign.proposer.propose", stuck)
    with pytest.raises(PrimevoError, match="no child"):
        run(store)
    assert queries.summary(store, "test").progress.trained == 10


def test_drained_and_resumed_equals_uninterrupted(store: Store, url: str, whole: Rows) -> None:
    campaign = launch(store)
    for stop in (3, 17, 61):
        evaluator = InstantEvaluator()
        controller = Controller(store, campaign, evaluator)
        outcome = evaluator._outcome

        def drain_at(job: Job, stop: int = stop, inner: Any = outcome) -> Outcome:
            if job.id >= stop or job.test:
                controller.drain()  # noqa: B023
            return inner(job)  # type: ignore[no-any-return]

        evaluator._outcome = drain_at
        shown = controller.run()
        assert shown.pending == 0 and shown.phase != "done"
        assert queries.campaigns(store)[0].state == "interrupted"
    assert Controller(store, campaign, InstantEvaluator()).run().phase == "done"
    assert queries.campaigns(store)[0].state == "finished"
    assert rows(url) == whole


def test_a_finished_campaign_has_nothing_left_to_do(store: Store, url: str) -> None:
    campaign = launch(store, candidates=10)
    Controller(store, campaign, InstantEvaluator()).run()
    before, evaluator = rows(url), InstantEvaluator()
    assert Controller(store, campaign, evaluator).run().phase == "done"
    assert (rows(url), evaluator.submitted) == (before, [])


def start(url: str, capacity: int, delay_s: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.search.instant", url, "test"]
    return subprocess.Popen(
        [*command, str(capacity), str(delay_s)],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def recorded(url: str) -> int:
    return len(evaluations(url))


@on_sqlite_and_with_faults_on_postgresql
@pytest.mark.parametrize("capacity", [1, 3])
def test_kill_9_loses_nothing_that_was_recorded(
    store: Store, url: str, whole: Rows, capacity: int
) -> None:
    """Killed three times at random moments, then resumed to the end."""
    launch(store)
    for stop in (5, 25, 62):
        process = start(url, capacity, delay_s=0.02)
        wait_for(lambda stop=stop: recorded(url) >= stop)  # type: ignore[misc]
        time.sleep(random.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        wait_for(lambda: queries.campaigns(store)[0].state != "running", 10)
        before = rows(url)
        pending = queries.summary(store, "test").progress.pending
        assert 0 <= pending <= capacity
    evaluator = InstantEvaluator(capacity)
    shown = Controller(store, store.campaign("test"), evaluator).run()
    assert (shown.phase, shown.recorded, shown.pending) == ("done", 60, 0)
    after = rows(url)
    assert set(before) <= set(after)
    runs = ask(url, "SELECT candidate_id, kind, seed FROM evaluations")
    assert len(runs) == len(set(runs)) == 60 + 6
    if capacity == 1:
        assert after == whole


def test_what_was_running_runs_again_under_the_same_id(store: Store, url: str) -> None:
    campaign = launch(store)
    with pytest.raises(RuntimeError):
        Controller(store, campaign, Breaking(capacity=3)).run()
    lost = pending(store)
    evaluator = InstantEvaluator(3)
    Controller(store, campaign, evaluator).run()
    again = evaluator.submitted[:3]
    assert [job.id for job in again] == lost
    known = dict(ask(url, "SELECT id, dna FROM candidates"))  # type: ignore[arg-type]
    assert all(known[job.id] == job.dna for job in again)


def pending(store: Store) -> list[int]:
    last = queries.summary(store, "test").progress.recorded
    records = [queries.candidate(store, "test", id) for id in range(1, last + 1)]
    return [int(record["id"] or 0) for record in records if record["outcome"] is None]


@on_sqlite_and_with_faults_on_postgresql
def test_a_second_controller_is_refused_and_stop_drains_the_first(store: Store, url: str) -> None:
    campaign = launch(store, candidates=5000)
    process = start(url, capacity=2, delay_s=0.02)
    wait_for(lambda: recorded(url) >= 3)
    with pytest.raises(StoreError, match=f"'test' is being run by process {process.pid} on "):
        Controller(store, campaign, InstantEvaluator()).run()
    assert queries.campaigns(store)[0].state == "running"
    assert start(url, 1, 0.0).wait(60) == 1
    assert store.request_stop(campaign.id)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (0, "search\n", "")
    summary = queries.summary(store, "test")
    assert (summary.line.state, summary.progress.pending) == ("interrupted", 0)
    assert not store.request_stop(campaign.id)


def test_progress_is_shown_and_a_heartbeat_left(store: Store) -> None:
    shown: list[tuple[Progress, Heartbeat]] = []
    now = [0.0]

    def clock() -> float:
        now[0] += 0.05
        return now[0]

    campaign = launch(store)
    evaluator = InstantEvaluator(2)
    Controller(store, campaign, evaluator, lambda *seen: shown.append(seen), clock).run()
    phases = [progress.phase for progress, _ in shown]
    assert phases[0] == "seeds" and phases[-1] == "done" and {"search", "final"} <= set(phases)
    first, last = shown[0][1], shown[-1][1]
    assert (first.running, first.capacity, first.eta_s) == (1, 2, None)
    assert first.waiting == "for the seed programs, which every child descends from"
    assert (last.running, last.waiting, last.eta_s) == (0, "", 0.0)
    middle = [beat.eta_s for progress, beat in shown if progress.phase == "search"]
    assert middle[-1] is not None and middle[-1] < max(eta for eta in middle if eta is not None)
    assert store.campaign("test").heartbeat == last


def failing(job: Job) -> Outcome:
    return Outcome("out_of_memory", reason="too large")


def test_seeds_that_cannot_be_trained_end_the_campaign(store: Store) -> None:
    with pytest.raises(
        PrimevoError, match=r"trained; candidate 1: out_of_memory \(too large\); candidate 2: out"
    ):
        run(store, InstantEvaluator(outcome=failing), seeds=("transformer", "primer"))
    assert queries.candidate(store, "test", 1)["outcome"] == "out_of_memory"
    with pytest.raises(PrimevoError, match=r"candidate 1: out_of_memory \(too large\)"):
        Controller(store, store.campaign("test"), InstantEvaluator()).run()


def test_a_seed_named_twice_is_refused(store: Store) -> None:
    with pytest.raises(UsageError, match="primer and primer are one program"):
        run(store, seeds=("primer", "primer"))
    assert queries.campaigns(store)[0].recorded == 0


def test_a_failed_child_costs_one_candidate(store: Store) -> None:
    def outcome(job: Job) -> Outcome:
        return failing(job) if job.id % 2 == 0 and not job.test else outcome_of(job)

    shown = run(store, InstantEvaluator(2, outcome), candidates=40)
    assert shown.phase == "done"
    assert shown.outcomes["out_of_memory"] >= 15
    assert all(record["fitness"] is not None for record in queries.top(store, "test", 40))


def test_without_a_final_phase_the_search_is_all(store: Store) -> None:
    from search.config.schema import FinalSpec

    shown = run(store, candidates=10, final=FinalSpec(top=0))
    assert (shown.phase, shown.finals_planned) == ("done", 0)
    assert queries.summary(store, "test").final == ()
