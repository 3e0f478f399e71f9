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

STEPS = Budget("steps", 10)


@pytest.mark.slow
def test_outcomes_are_those_of_a_worker_that_compiles_for_itself(
    ray_session: None, tiny_task: Task
) -> None:
    """With the real thing: JAX, programs with and without noise, one of them twice."""
    training = tiny_task.training.model_copy(update={"backend": "jax"})
    task = tiny_task.model_copy(update={"training": training})
    programs = [render(load_seed(name)) for name in ("transformer", "switch")]
    jobs = [
        Job(0, programs[0], Budget("steps", 40, (Hurdle(20),)), seed=5, test=True),
        Job(1, programs[1], Budget("steps", 40), seed=6),
        Job(2, programs[0], Budget("steps", 40), seed=7),
        Job(3, "no program", STEPS, seed=1),
    ]
    found = []
    for number in (0, 2):
        with Pool(task, PoolSpec(count=1, cpus_per_worker=1, ahead=number)) as pool:
            for job in jobs:
                pool.submit(job)
            reports: list[Report] = []
            end = time.monotonic() + 150
            while len(reports) < len(jobs) and time.monotonic() < end:
                reports += pool.wait(10)
        reports.sort(key=lambda report: report.job.id)
        found.append([(r.outcome.status, r.outcome.val_loss, r.outcome.test_loss, r.outcome.steps,
                       [m.val_loss for m in r.outcome.curve], r.outcome.metrics)
                      for r in reports])  # fmt: skip
    assert found[0] == found[1]
    assert found[0][3][0] == "invalid" and found[0][0][0] == "completed"
