"""What is compiled in one process and trained in another gives the numbers of one process."""

from __future__ import annotations

import time

import pytest

from primitives.language.text import render
from primitives.programs.seeds import load_seed
from workers.pool.pool import Pool
from workers.spec.outcome import Budget, Hurdle, Job, Report
from workers.spec.pool import PoolSpec
from workers.spec.task import Task


@pytest.mark.slow
def test_outcomes_are_those_of_a_worker_that_compiles_for_itself(
    ray_session: None, tiny_task: Task
) -> None:
    """JAX, a program whose experts draw noise, and two seeds that share its compilation."""
    training = tiny_task.training.model_copy(update={"backend": "jax"})
    task = tiny_task.model_copy(update={"training": training})
    program = render(load_seed("switch"))
    jobs = [
        Job(0, program, Budget("steps", 40, (Hurdle(20),)), seed=5, test=True),
        Job(1, program, Budget("steps", 40), seed=6),
        Job(2, "no program", Budget("steps", 1), seed=1),
    ]
    found = []
    for number in (0, 1):
        with Pool(task, PoolSpec(count=1, cpus_per_worker=1, ahead=number)) as pool:
            for job in jobs:
                pool.submit(job)
            reports: list[Report] = []
            end = time.monotonic() + 300
            while len(reports) < len(jobs) and time.monotonic() < end:
                reports += pool.wait(10)
        reports.sort(key=lambda report: report.job.id)
        found.append([(r.outcome.status, r.outcome.val_loss, r.outcome.test_loss, r.outcome.steps,
                       [m.val_loss for m in r.outcome.curve], r.outcome.metrics)
                      for r in reports])  # fmt: skip
    assert found[0] == found[1]
    assert [status for status, *_ in found[0]] == ["completed", "completed", "invalid"]
    assert found[0][0][1] != found[0][1][1]
