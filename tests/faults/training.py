"""What the workers of fault tests run in training itself: the real entry, interrupted.

`faults.json` (see `tests.faults.entries`) may name for a candidate `compiles`, `trains` or
`reports`: its process gets SIGKILL while it does, in its first run alone. `nan at once` and `nan
late`: its loss is not a number from the first step on, or from the second.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from tests.faults.entries import accident, first_time, folder, note_run
from workers.engines import engine
from workers.spec.outcome import Job, Outcome
from workers.spec.task import Task
from workers.training.evaluate import run_job

MAKE = engine.make_engine


class Fatal:
    """It kills the process that turns it into bytes, which is how an outcome leaves a worker."""

    def __reduce__(self) -> tuple[Callable[[], Fatal], tuple[()]]:
        die("reports")
        raise AssertionError("unreachable")


def die(while_it: str) -> None:
    (folder() / f"died-{while_it}").touch()
    os.kill(os.getpid(), signal.SIGKILL)


def act(job: Job, task: Task) -> Outcome:
    """The real outcome, unless something happens."""
    note_run(job)
    what = accident(job)
    killed = what in ("compiles", "trains", "reports") and first_time(job)

    def make(graph: Any, values: Sequence[Any], *others: Any) -> Any:
        if what == "nan at once":
            values = [value * float("nan") for value in values]
        if killed and what == "compiles":
            threading.Timer(0.05, die, ["compiles"]).start()
        made = MAKE(graph, values, *others)
        if killed and what == "trains":
            made.train = _dying(made.train)
        return made

    if what == "nan late":
        wild = task.optimizer.model_copy(update={"learning_rate": 1e30, "warmup_steps": 1})
        task = task.model_copy(update={"optimizer": wild})
    engine.make_engine = make
    try:
        outcome = run_job(job, task)
    finally:
        engine.make_engine = MAKE
    if killed and what == "reports":
        return replace(outcome, metrics={"fatal": Fatal()})  # type: ignore[dict-item]
    return outcome


def _dying(train: Callable[[Any], float]) -> Callable[[Any], float]:
    def never_ends(windows: Any) -> float:
        threading.Timer(0.05, die, ["trains"]).start()
        while True:
            train(windows)

    return never_ends
