"""The process that runs jobs, one after the other, with the framework kept warm."""

from __future__ import annotations

import gc
import os
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name

from workers import plugins
from workers.machine.devices import Layout
from workers.machine.memory import resident_mb
from workers.spec.outcome import Budget, Job, Outcome
from workers.spec.task import ModelSpec, Task


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker is told when it starts.

    Attributes:
        task: What every job of this worker is trained on.
        layout: The share of the machine that the worker may use.
        memory_limit_mb: The GPU memory that it may use; None lets it grow.
        entry: The path `module:name` of a function (job: Job, task: Task) -> Outcome, which is
            called for every job. What it expects to go wrong it turns into an outcome itself.
        warm_up: The path of a function (setup: Setup) -> None, called once before the first job.
        plugins: Names of the plug-ins that are loaded before anything else.
        search_path: Folders where the driver looks for modules. The worker looks there, too, after
            all the places that it knows itself, so that it finds the plug-ins that the driver has.
    """

    task: Task
    layout: Layout
    memory_limit_mb: int | None
    entry: str
    warm_up: str
    plugins: tuple[str, ...] = ()
    search_path: tuple[str, ...] = ()


TIDY_EVERY = 8
"""Jobs between two searches for garbage on a CPU: each leaves some megabytes."""


class Worker:
    """Runs jobs in a process of its own, as a Ray actor. Call `prepare` once, then `run` for each
    job, one at a time."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._entry: Callable[[Job, Task], Outcome] | None = None
        self._jobs = 0

    def place(self) -> tuple[str, int]:
        """Returns where the worker is: host name, process id."""
        return socket.gethostname(), os.getpid()

    def prepare(self) -> None:
        """Loads the plug-ins and warms up."""
        plugins.look_in(self._setup.search_path)
        plugins.load(self._setup.plugins)
        resolve_name(self._setup.warm_up)(self._setup)
        self._entry = resolve_name(self._setup.entry)
        gc.disable()  # see _tidy

    def run(self, job: Job) -> tuple[Outcome, float]:
        """Returns the job's outcome, and the memory in MB that this process holds after it."""
        return self._outcome(job), resident_mb()

    def _outcome(self, job: Job) -> Outcome:
        """An exception that the entry lets through becomes the outcome `crashed`; the worker lives
        on."""
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


def warm_up(setup: Setup) -> None:
    """Binds the framework to the worker's device, makes the tokens if nobody has yet, and trains a
    small model for a step: where that fails, the machine is at fault and no candidate."""
    from primitives.programs.seeds import load_seed
    from workers.machine.backends import configure
    from workers.training.evaluate import evaluate

    configure(setup.task.training.backend, setup.layout, setup.memory_limit_mb)
    task = _small(setup.task)
    dna = load_seed("transformer", task.model.d_model)
    outcome = evaluate(dna, task, Budget("steps", 1), seed=0)
    if outcome.status != "completed":
        raise RuntimeError(f"a first training step ended as {outcome.status}: {outcome.reason}")


def _small(task: Task) -> Task:
    """The task with a model that takes no time, and with a batch from which any objective that the
    task's own batch serves can make a loss."""
    size = {"batch_size": min(task.training.batch_size, 2), "eval_batches": 1}
    training = task.training.model_copy(update=size)
    length = min(task.model.sequence_length, 8)
    model = ModelSpec(d_model=8, layers=1, sequence_length=length)
    return task.model_copy(update={"model": model, "training": training})
