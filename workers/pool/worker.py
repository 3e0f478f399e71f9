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
from workers.pool.line import Line
from workers.spec.objectives import OBJECTIVES
from workers.spec.outcome import Budget, Compiled, Job, Outcome
from workers.spec.task import ModelSpec, Task


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker is told when it starts.

    Attributes:
        task: What each job of this worker is trained on that says no other.
        layout: The share of the machine that the worker may use.
        memory_limit_mb: The GPU memory that it may use; None lets it grow.
        entry: The path `module:name` of a function (job: Job, task: Task) -> Outcome, which is
            called for every job. What it expects to go wrong it turns into an outcome itself. Where
            a job is compiled by one worker and trained by another, the former's gives an Outcome
            only if there is nothing to train, else a Compiled; the latter's takes two more
            arguments, that and a context to hold while it uses the device.
        warm_up: The path of a function (setup: Setup) -> None, called once before the first job.
        plugins: Names of the plug-ins that are loaded before anything else.
        search_path: Folders where the driver looks for modules. The worker looks there, too, after
            all the places that it knows itself, so that it finds the plug-ins that the driver has.
        jobs: How many it may be given at once. It makes the later ones ready while the first one
            has the device.
    """

    task: Task
    layout: Layout
    memory_limit_mb: int | None
    entry: str
    warm_up: str
    plugins: tuple[str, ...] = ()
    search_path: tuple[str, ...] = ()
    jobs: int = 1


NICE = 10
"""By so much lower is the priority of a worker that compiles for others (see nice(2))."""

TIDY_EVERY = 8
"""Jobs between two searches for garbage on a CPU: each leaves some megabytes."""


class Worker:
    """Runs jobs in a process of its own, as a Ray actor. Call `prepare` once, then `run` for each
    job, no more at a time than its setup says."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._entry: Callable[..., Outcome | Compiled] | None = None
        self._jobs = 0
        self._line = Line()

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
        if self._setup.jobs > 1:
            gc.collect()
            gc.freeze()  # a search for garbage holds up the job that trains: it shall be short

    def run(
        self, job: Job, compiled: Compiled | None = None, number: int = 0
    ) -> tuple[Outcome | Compiled, float]:
        """Returns what the entry gives, and the memory in MB that this process holds after it. A
        job that comes `compiled` also says which one it is, from 0, of those that this worker is
        given: they get the device in that order."""
        more = () if compiled is None else (compiled, self._line.turn(number))
        try:
            return self._outcome(job, *more), resident_mb()
        finally:
            self._line.leave(number)

    def _outcome(self, job: Job, *more: object) -> Outcome | Compiled:
        """An exception that the entry lets through becomes the outcome `crashed`; the worker lives
        on."""
        assert self._entry is not None, "prepare() comes first"
        try:
            return self._entry(job, job.task or self._setup.task, *more)
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
    small model for a step: where that fails, the machine is at fault and no candidate. A worker
    that will train what others have compiled does so with this one, too."""
    from workers.training.evaluate import compile_job, run_job

    _bind(setup)
    task = _small(setup.task)
    job = _first_job(task)
    made = compile_job(job, task) if setup.jobs > 1 else None
    outcome = made if isinstance(made, Outcome) else run_job(job, task, made)
    if outcome.status != "completed":
        raise RuntimeError(f"a first training step ended as {outcome.status}: {outcome.reason}")


def warm_up_compiler(setup: Setup) -> None:
    """The same for a worker that compiles for others, up to the training. It stands back where the
    one that trains wants a processor."""
    from workers.training.evaluate import compile_job

    os.nice(NICE)
    _bind(setup)
    task = _small(setup.task)
    made = compile_job(_first_job(task), task)
    if isinstance(made, Outcome):
        raise RuntimeError(f"a first program cannot be compiled: {made.status}: {made.reason}")


def _bind(setup: Setup) -> None:
    from workers.machine.backends import configure

    configure(setup.task.training.backend, setup.layout, setup.memory_limit_mb)


def _first_job(task: Task) -> Job:
    from primitives.language.text import render
    from primitives.programs.seeds import load_seed

    dna = load_seed("transformer", task.model.d_model)
    return Job(0, render(dna), Budget("steps", 1), seed=0)


def _small(task: Task) -> Task:
    """The task with a model that takes no time, and with a batch from which any objective that the
    task's own batch serves can make a loss: two sequences, or one group of them. Groups keep their
    length, because similar texts are searched once for each length, which takes long."""
    group = OBJECTIVES[task.training.objective].group
    size = {"batch_size": min(task.training.batch_size, max(2, group)), "eval_batches": 1}
    training = task.training.model_copy(update=size)
    length = task.model.sequence_length if group > 1 else min(task.model.sequence_length, 8)
    model = ModelSpec(d_model=8, layers=1, sequence_length=length)
    return task.model_copy(update={"model": model, "training": training})
