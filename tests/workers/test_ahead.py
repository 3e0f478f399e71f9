"""Candidates that one worker compiles and another trains, with processes that really die."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from primitives.language.text import render
from primitives.programs.seeds import load_seed
from workers.machine.backends import BACKENDS
from workers.machine.devices import Layout
from workers.pool.crew import Ticket
from workers.pool.line import Line
from workers.pool.pool import Pool, PoolError
from workers.pool.twins import Twins
from workers.spec.outcome import Budget, Compiled, Job, Report
from workers.spec.pool import PoolSpec, ahead
from workers.spec.task import Task, TrainingSpec

ENTRIES = "tests.workers.pool_entries"
STEPS = Budget("steps", 10)
COMPILER = (f"{ENTRIES}:compile_job", f"{ENTRIES}:warm_up")

LIMIT_S = 2.0


@pytest.fixture(scope="module")
def pool(ray_session: None) -> Iterator[Pool]:
    """One worker that trains and two that compile; a job is `COMPILE; LOAD; TRAIN`. It serves all
    tests, whatever they did to its workers."""
    spec = PoolSpec(count=1, cpus_per_worker=1, ahead=2, timeout_s=LIMIT_S)
    task = Task(training=TrainingSpec(backend="jax"))
    train, warm_up = f"{ENTRIES}:train_compiled", f"{ENTRIES}:warm_up"
    with Pool(task, spec, train, warm_up, compiler=COMPILER) as pool:
        run(pool, ";;")
        yield pool


def run(pool: Pool, *commands: str, seconds: float = 60) -> list[Report]:
    """The reports of one job a command, as they come; each job has one."""
    for index, command in enumerate(commands):
        pool.submit(Job(index, command, STEPS, seed=index))
    reports: list[Report] = []
    end = time.monotonic() + seconds
    while len(reports) < len(commands) and time.monotonic() < end:
        reports += pool.wait(5)
    assert sorted(report.job.id for report in reports) == list(range(len(commands)))
    assert pool.wait(0.1) == []
    return reports


def statuses(reports: list[Report]) -> dict[int, str]:
    return {report.job.id: report.outcome.status for report in reports}


def test_some_compile_and_one_trains_one_job_after_the_other(pool: Pool) -> None:
    assert pool.capacity() == 3
    reports = run(pool, *["sleep 0.2 ; ok ; sleep 0.1"] * 6)
    parts = [report.outcome.reason.split() for report in reports]
    compilers, trainers = {part[0] for part in parts}, {part[1] for part in parts}
    assert (len(compilers), len(trainers)) == (2, 1) and not compilers & trainers
    times = [(float(began), float(ended)) for *_, began, ended in parts]
    assert all(ended <= began for (_, ended), (began, _) in pairwise(times))
    assert {report.worker.split("/")[1] for report in reports} == trainers


def test_a_slow_compilation_holds_nobody_up(pool: Pool) -> None:
    reports = run(pool, "sleep 1.5 ; ok ; ok", *["ok ; ok ; sleep 0.1"] * 5)
    assert [report.job.id for report in reports][-1] == 0


def test_what_fails_before_training_is_that_jobs_outcome(pool: Pool) -> None:
    reports = run(pool, "invalid;;", "raise no such op;;", "ok ; raise late ; ok", ";;")
    by_job = {report.job.id: report.outcome for report in reports}
    assert (by_job[0].status, by_job[0].reason) == ("invalid", "no program")
    assert (by_job[1].status, by_job[2].status) == ("crashed", "crashed")
    assert "no such op" in by_job[1].reason.replace("\n", " ") and "late" in by_job[2].reason
    assert by_job[3].status == "completed"


def test_a_hang_in_compilation_is_killed_and_others_train_meanwhile(pool: Pool) -> None:
    reports = run(pool, "hang ; ok ; ok", *["ok ; ok ; sleep 0.3"] * 4)
    assert statuses(reports) == {0: "timed_out", **dict.fromkeys(range(1, 5), "completed")}
    [hung] = [report.outcome for report in reports if report.job.id == 0]
    assert hung.reason == "killed while it was compiled, at its time limit of 2 s"
    assert len({report.outcome.reason.split()[1] for report in reports[:3]}) == 1


def test_the_time_limit_runs_while_a_job_has_the_device(pool: Pool) -> None:
    """Each waits longer than the limit for those before it, and none is late."""
    reports = run(pool, *["sleep 1 ; ok ; sleep 1"] * 4)
    assert set(statuses(reports).values()) == {"completed"}


@pytest.mark.parametrize("end", ["hang", "kill_once {0}", "kill"])
def test_a_job_made_ready_beside_one_that_ends_its_worker_runs_again(
    pool: Pool, tmp_path: Path, end: str
) -> None:
    """It is not compiled again, and has lost no worker: it may lose one itself."""
    victim = f"kill_once {tmp_path / 'own'}"
    reports = run(pool, f"ok ; sleep 0.5 ; {end}".format(tmp_path / "first"), f"ok ; ok ; {victim}")
    wanted = {"hang": "timed_out", "kill": "crashed"}.get(end, "completed")
    assert statuses(reports) == {0: wanted, 1: "completed"}


def test_a_loss_while_compiling_and_one_while_training_count_together(
    pool: Pool, tmp_path: Path
) -> None:
    mark = tmp_path / "died"
    reports = run(pool, f"kill_once {mark};;ok", f"kill_once {mark}2;;kill", ";;")
    assert statuses(reports) == {0: "completed", 1: "crashed", 2: "completed"}


def test_a_backend_that_cannot_is_refused(ray_session: None) -> None:
    message = r"workers.ahead is 2, but backend tensorflow .* set it to 0, .*one of: jax"
    with pytest.raises(PoolError, match=message):
        Pool(Task(), PoolSpec(count=1, ahead=2))


@pytest.mark.parametrize(
    ("spec", "backend", "planned", "expected"),
    [
        (PoolSpec(), "jax", Layout(1, 16, 1.0), 8),
        (PoolSpec(), "jax", Layout(4, 4, 1.0), 3),
        (PoolSpec(), "jax", Layout(1, 1, 1.0), 0),
        (PoolSpec(), "jax", Layout(10, 1, 0.1), 0),
        (PoolSpec(), "jax", Layout(2, 1, 0.0), 0),
        (PoolSpec(), "tensorflow", Layout(1, 16, 1.0), 0),
        (PoolSpec(ahead=2), "jax", Layout(2, 1, 0.0), 2),
        (PoolSpec(ahead=0), "jax", Layout(1, 16, 1.0), 0),
    ],
)
def test_processes_that_compile_for_a_gpu_are_the_default(
    spec: PoolSpec, backend: str, planned: Layout, expected: int
) -> None:
    assert ahead(spec, BACKENDS[backend], planned) == expected


@given(st.permutations(range(6)), st.sets(st.integers(0, 5)))
def test_a_line_lets_threads_through_in_order(order: list[int], absent: set[int]) -> None:
    line, passed = Line(), []

    def go(number: int) -> None:
        if number not in absent:
            with line.turn(number):
                passed.append(number)
        line.leave(number)

    threads = [Thread(target=go, args=[number]) for number in order]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert passed == [number for number in range(6) if number not in absent]


def test_jobs_of_one_program_wait_for_one_compilation() -> None:
    program = render(load_seed("transformer"))
    renamed = program.replace("residual(x, mixed)", "residual(mixed, x)")
    assert renamed != program
    twins, steps = Twins(Task()), Compiled(b"", 1.0)
    first, second, third, other, none = (
        Ticket(Job(index, text, budget, seed=index))
        for index, (text, budget) in enumerate(
            [(program, STEPS), (renamed, STEPS), (program, STEPS), (program, Budget("steps", 11)),
             ("no program", STEPS)]
        )
    )  # fmt: skip
    assert [twins.must_compile(each) for each in (first, second, other, none)] == [
        True, False, True, True,
    ]  # fmt: skip
    assert twins.must_compile(first), "after its worker has died"
    assert twins.failed(first) == [second]
    assert twins.must_compile(second) and not twins.must_compile(first)
    assert twins.made(second, steps) == [second, first] and first.compiled is steps
    assert not twins.must_compile(third) and third.compiled is steps
    assert twins.must_compile(none) and twins.failed(none) == []
