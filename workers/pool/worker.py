"""The process that runs jobs, one after the other, with the framework kept warm."""

from __future__ import annotations

import gc
import importlib
import os
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workers.machine.memory import resident_mb
from workers.spec.outcome import Budget, Job, Outcome
from workers.spec.pool import Layout
from workers.spec.task import ModelSpec, Task


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker is told when it starts. `entry` and `warm_up` are dotted paths, `module:name`.

    entry(job: Job, task: Task) -> Outcome is called for every job; it maps what it expects to go
    wrong to an outcome itself. warm_up(setup: Setup) is called once, before the first job.
    """

    task: Task
    layout: Layout
    memory_limit_mb: int | None
    entry: str
    warm_up: str


TIDY_EVERY = 8
"""Jobs between two searches for garbage on a CPU: each leaves some megabytes."""


class Worker:
    """Lives in a process of its own, as a Ray actor."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._entry: Callable[[Job, Task], Outcome] | None = None
        self._jobs = 0

    def place(self) -> tuple[str, int]:
        """Where the worker is: host name and process id."""
        return socket.gethostname(), os.getpid()

    def prepare(self) -> None:
        """Warms up."""
        _resolve(self._setup.warm_up)(self._setup)
        self._entry = _resolve(self._setup.entry)
        gc.disable()  # see _tidy

    def run(self, job: Job) -> tuple[Outcome, float]:
        """The job's outcome, and the memory in MB that this process holds after it."""
        return self._outcome(job), resident_mb()

    def _outcome(self, job: Job) -> Outcome:
        """An exception that the entry let through is an outcome, too."""
        assert self._entry is not None, "prepare() comes first"
        try:
            return self._entry(job, self._setup.task)
        except Exception as error:
            return Outcome("crashed", reason=one_line(error))
        finally:
            self._tidy()

    def _tidy(self) -> None:
        """Frees what a candidate leaves behind. Tracing makes so many objects that Python would
        look for garbage all the time, at a quarter of a candidate's overhead; it looks here
        instead: after every job where GPU memory is held, else now and then."""
        self._jobs += 1
        if self._setup.layout.gpus or self._jobs % TIDY_EVERY == 0:
            gc.collect()


def one_line(error: BaseException) -> str:
    """The exception's type and message in one line. Of a long message the ends stay: TensorFlow
    puts a stack between what happened and why."""
    text = " ".join("".join(traceback.format_exception_only(error)).split())
    return text if len(text) <= 500 else f"{text[:200]} ... {text[-300:]}"


def _resolve(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def warm_up(setup: Setup) -> None:
    """Binds the framework to the worker's device, makes the tokens if nobody has yet, and trains
    the smallest model for a step: where that fails, the machine is at fault and no candidate."""
    from primitives.programs.seeds import load_seed
    from workers.machine.devices import configure
    from workers.training.evaluate import evaluate

    configure(setup.task.training.backend, setup.layout, setup.memory_limit_mb)
    outcome = evaluate(load_seed("transformer"), _smallest(setup.task), Budget("steps", 1), seed=0)
    if outcome.status != "completed":
        raise RuntimeError(f"a first training step ended as {outcome.status}: {outcome.reason}")


def _smallest(task: Task) -> Task:
    training = task.training.model_copy(update={"batch_size": 1, "eval_batches": 1})
    model = ModelSpec(d_model=8, layers=1, sequence_length=2)
    return task.model_copy(update={"model": model, "training": training})
