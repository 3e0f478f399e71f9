"""The worker pool, with real processes that really die."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from primitives.language.text import render
from primitives.programs.seeds import load_seed
from tests.processes import alive, wait_until
from workers.data.corpora import DataError
from workers.machine.devices import Layout
from workers.machine.memory import total_mb
from workers.pool.cluster import Cluster
from workers.pool.local import Session
from workers.pool.pool import Pool, PoolError
from workers.spec.outcome import Budget, Job, Report
from workers.spec.pool import PoolSpec
from workers.spec.task import DataSpec, Task

ROOT = Path(__file__).parents[2]
ENTRIES = "tests.workers.pool_entries"
STEPS = Budget("steps", 10)

MakePool = Callable[..., Pool]


@pytest.fixture
def make_pool(ray_session: None) -> Iterator[MakePool]:
    pools = []

    def make(warm_up: str = "warm_up", **fields: object) -> Pool:
        spec = PoolSpec(**{"count": 1, "cpus_per_worker": 1, **fields})
        pools.append(Pool(Task(), spec, f"{ENTRIES}:obey", f"{ENTRIES}:{warm_up}"))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def run(pool: Pool, *commands: str, budget: Budget = STEPS) -> list[Report]:
    """The reports of one job a command, in the jobs' order. Where the machine is busy, a worker's
    start alone may take a minute."""
    for index, command in enumerate(commands):
        pool.submit(Job(index, command, budget, seed=index))
    reports: list[Report] = []
    end = time.monotonic() + 240
    while len(reports) < len(commands) and time.monotonic() < end:
        reports += pool.wait(5)
    return sorted(reports, key=lambda report: report.job.id)


def test_jobs_are_accepted_before_workers_are_warm_and_run_side_by_side(
    make_pool: MakePool,
) -> None:
    pool = make_pool(count=2)
    assert pool.capacity() == 2
    assert pool.wait(60) == []  # nothing submitted: nothing to wait for
    pool.submit(Job(9, "ok", STEPS, seed=1))
    assert "starting" in (pool.why_waiting() or "")
    assert [report.outcome.val_loss for report in pool.wait(30)] == [1.0]
    reports = run(pool, *["sleep 0.3"] * 6)
    assert [report.job.id for report in reports] == list(range(6))
    assert len({report.worker for report in reports}) == 2
    assert pool.why_waiting() is None


def test_wait_returns_at_the_first_report_and_at_its_timeout(make_pool: MakePool) -> None:
    pool = make_pool(count=2)
    run(pool, "ok", "ok")
    pool.submit(Job(0, "sleep 20", STEPS, seed=0))
    pool.submit(Job(1, "sleep 0.2", STEPS, seed=0))
    start = time.monotonic()
    assert [report.job.id for report in pool.wait(10)] == [1]
    assert pool.wait(0.3) == []
    assert time.monotonic() - start < 5


def test_overdue_job_is_killed_with_its_process_and_the_rest_goes_on(make_pool: MakePool) -> None:
    pool = make_pool(timeout_s=1.0)
    [before] = run(pool, "ok")
    start = time.monotonic()
    hung, after = run(pool, "hang", "ok")
    assert time.monotonic() - start < 30
    assert (hung.outcome.status, hung.outcome.reason) == (
        "timed_out", "killed at its time limit of 1 s",
    )  # fmt: skip
    assert hung.worker == before.worker != after.worker
    assert after.outcome.status == "completed"
    assert wait_until(lambda: not alive(int(before.outcome.reason)), 5)


def test_budget_in_seconds_sets_the_time_limit(make_pool: MakePool) -> None:
    pool = make_pool(timeout_s=60.0, timeout_factor=2.0, setup_allowance_s=0.5)
    [report] = run(pool, "sleep 30", budget=Budget("seconds", 0.5))
    assert report.outcome.reason == "killed at its time limit of 1.5 s"


@pytest.mark.parametrize(
    ("command", "reason"), [("kill", "killed from outside"), ("exit", "exited with code 3")]
)
def test_job_that_kills_workers_is_tried_twice_then_recorded(
    make_pool: MakePool, command: str, reason: str
) -> None:
    pool = make_pool()
    crashed, after = run(pool, command, "ok")
    assert crashed.outcome.status == "crashed"
    assert "2 times" in crashed.outcome.reason
    assert reason in crashed.outcome.reason
    assert after.outcome.status == "completed"


def test_job_whose_worker_died_by_accident_completes(make_pool: MakePool, tmp_path: Path) -> None:
    [report] = run(make_pool(), f"kill_once {tmp_path / 'died'}")
    assert report.outcome.status == "completed"


def test_exception_of_a_job_is_recorded_and_the_worker_lives(make_pool: MakePool) -> None:
    crashed, after = run(make_pool(), "raise not finite", "ok")
    assert (crashed.outcome.status, crashed.outcome.reason) == (
        "crashed", "ValueError: weights are not finite",
    )  # fmt: skip
    assert after.worker == crashed.worker


def test_a_worker_is_replaced_by_a_fresh_process_after_its_jobs(make_pool: MakePool) -> None:
    reports = run(make_pool(jobs_per_worker=2), *["sleep 0"] * 4)
    first, second, third, fourth = (report.outcome.reason for report in reports)
    assert first == second != third == fourth


def test_a_worker_that_has_grown_is_replaced_and_no_job_is_lost(make_pool: MakePool) -> None:
    pool = make_pool(memory_per_worker_mb=1000)
    reports = run(pool, *["leak 600"] * 6)
    assert [report.outcome.status for report in reports] == ["completed"] * 6
    jobs = Counter(report.worker for report in reports)
    assert len(jobs) >= 3  # a fresh worker holds less than 400 MB here: each bears one or two jobs
    assert max(jobs.values()) <= 2


def test_a_worker_that_grows_by_two_fifths_is_replaced(make_pool: MakePool) -> None:
    """Counted from its first 20 jobs, however little it holds."""
    reports = run(make_pool(), *["ok"] * 20, "leak 300", "ok", "leak 300", "ok")
    workers = [report.worker for report in reports]
    assert len(set(workers[:21])) == 1
    assert workers[21] != workers[20]
    assert len(set(workers[21:])) == 1  # the next one has not had its 20 yet


def test_memory_is_shared_among_workers(ray_session: None) -> None:
    for count in (1, 2, 100):
        share = Cluster(Layout(count, 1, 0), Session(Path(), -1)).memory_share_mb()
        assert share == max(2000, 0.8 * total_mb() / count)
        assert Cluster(Layout(count, 1, 0), None).memory_share_mb() <= max(2000, total_mb() / count)


def test_after_a_death_a_spare_is_warm_but_not_used_beyond_capacity(make_pool: MakePool) -> None:
    pool = make_pool(timeout_s=1.5)
    run(pool, "hang", "ok")
    assert wait_until(lambda: bool(run(pool, "ok")) and len(pool._trainers.idle) == 2, 30)
    warm = {member.name for member in pool._trainers.idle}
    hung, after = run(pool, "hang", "ok")
    assert {hung.worker, after.worker} == warm  # nobody waited for a new process
    started = time.monotonic()
    run(pool, "sleep 0.5", "sleep 0.5")
    assert time.monotonic() - started > 1.0


def test_workers_that_cannot_warm_up_end_the_pool_with_the_reason(make_pool: MakePool) -> None:
    pool = make_pool("warm_up_raises")
    pool.submit(Job(0, "ok", STEPS, seed=0))
    with pytest.raises(PoolError, match="RuntimeError: no such device"):
        pool.wait(30)


def test_workers_that_die_while_warming_up_end_the_pool(make_pool: MakePool) -> None:
    pool = make_pool("warm_up_dies")
    pool.submit(Job(0, "ok", STEPS, seed=0))
    with pytest.raises(PoolError, match="3 workers in a row did not start: the last one died"):
        pool.wait(60)


def test_workers_that_do_not_get_warm_in_time_end_the_pool(make_pool: MakePool) -> None:
    pool = make_pool("warm_up_hangs", start_timeout_s=0.5)
    pool.submit(Job(0, "ok", STEPS, seed=0))
    with pytest.raises(PoolError, match=r"took more than 0\.5 s, which is workers"):
        while True:
            pool.wait(60)


def test_one_slow_start_is_made_up_for(make_pool: MakePool) -> None:
    pool = make_pool("warm_up_hangs_once", start_timeout_s=2.0)
    [report] = run(pool, "ok")
    assert report.outcome.status == "completed"


def test_workers_train_with_the_threads_they_are_given(ray_session: None, tiny_task: Task) -> None:
    program = render(load_seed("transformer"))
    with Pool(tiny_task, PoolSpec(count=1, cpus_per_worker=2), f"{ENTRIES}:train") as pool:
        first, second = run(pool, program, program)
    assert first.outcome.status == second.outcome.status == "completed"
    assert first.outcome.steps == 10
    assert first.outcome.val_loss is not None
    assert first.outcome.reason == "(2, 2) 2"


def test_missing_text_is_refused_before_anything_starts() -> None:
    task = Task(data=DataSpec(source="text", files=("/no/such/*.txt",)))
    with pytest.raises(DataError, match="no file matches"):
        Pool(task)


def test_unreachable_cluster_is_named() -> None:
    script = (
        "from workers.pool.pool import *; from workers.spec.task import Task\n"
        "try: Pool(Task(), PoolSpec(address='127.0.0.1:1'))\n"
        "except PoolError as error: print(error)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT
    )
    assert answer.stdout.startswith("cannot join the Ray cluster at workers.address '127.0.0.1:1'")
