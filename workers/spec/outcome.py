"""What a candidate was given and what came back: plain data, no framework import."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from workers.spec.task import Task


Status = Literal[
    "completed", "diverged", "out_of_memory", "too_slow", "timed_out", "invalid", "crashed"
]
STATUSES: tuple[Status, ...] = (
    "completed", "diverged", "out_of_memory", "too_slow", "timed_out", "invalid", "crashed",
)  # fmt: skip
Unit = Literal["seconds", "steps", "tokens", "flops"]

BACKWARD = 3
"""Training FLOPs over forward FLOPs: the backward pass costs about two forward passes."""


@dataclass(frozen=True, slots=True)
class Hurdle:
    """A point of the budget where a candidate must stand at or below a validation loss to go on.

    `at` counts the budget's unit from the start of training; `threshold` is in nats per token, or
    None while too few candidates have come by to set one (everybody passes).
    """

    at: float
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class StepLimit:
    """The longest step that a candidate may take: `factor` times the seed program's, which takes
    `seed_s` seconds."""

    seed_s: float
    factor: float


@dataclass(frozen=True, slots=True)
class Budget:
    """How long a candidate may train: `amount` of `unit` (device seconds without compilation,
    optimiser steps, training tokens, or training FLOPs), with hurdles on the way. `points` are
    further places, in the same unit, at which it is scored; they stop nothing, and none of them is
    where a hurdle is.

    A candidate whose step is longer than `step_limit` allows ends as too_slow. One that would need
    more than `time_limit_s` seconds for all of its job, compilation and scores included, ends as
    timed_out. Both end as soon as their pace is known. None sets no limit.
    """

    unit: Unit
    amount: float
    hurdles: tuple[Hurdle, ...] = ()
    step_limit: StepLimit | None = None
    time_limit_s: float | None = None
    points: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Measurement:
    """Validation loss (nats per token) at one point of training."""

    steps: int
    tokens: int
    train_seconds: float
    val_loss: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one training run, as data. Losses are in nats per token, times in seconds.

    `completed` covers runs that a hurdle stopped: `hurdles_passed` counts those it went over and
    `curve` holds one measurement for each place where it was scored, hurdle or point of the budget,
    the last one being the result. The curve of a run that was stopped for its pace ends in a
    place that is neither.
    `train_seconds` is device time without compilation; `setup_seconds` is everything else.
    `metrics` holds what else was measured, by name. `workers.spec.metrics` says what each number
    means, these fields' among them. `experts` says of final runs what the experts of each routed
    call are for, as JSON (`workers.training.specialties`). `training` holds (steps, mean training
    loss of the steps since the point before), also of runs that did not complete. `device` is what
    trained, by its vendor's name, such as NVIDIA H200: times on different ones do not compare.
    """

    status: Status
    reason: str = ""
    val_loss: float | None = None
    val_bpb: float | None = None
    test_loss: float | None = None
    test_bpb: float | None = None
    params: int | None = None
    active_params: int | None = None
    flops_per_token: int | None = None
    step_time_s: float | None = None
    steps: int = 0
    tokens: int = 0
    train_seconds: float = 0.0
    setup_seconds: float = 0.0
    hurdles_passed: int = 0
    curve: tuple[Measurement, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    experts: tuple[Mapping[str, Any], ...] = ()
    training: tuple[tuple[int, float], ...] = ()
    device: str | None = None

    @property
    def fitness(self) -> float | None:
        """The validation loss of a completed run, lower is better; None for every other status."""
        return self.val_loss if self.status == "completed" else None

    @property
    def val_perplexity(self) -> float | None:
        return None if self.val_loss is None else perplexity(self.val_loss)


def perplexity(loss: float) -> float:
    """exp(loss), as large as a float can be at most."""
    return math.exp(min(loss, 700.0))


@dataclass(frozen=True, slots=True)
class Pause:
    """Where a run is paused, and what keeps it meanwhile.

    Attributes:
        file: the run's checkpoint. One of the same run that is there is gone on from; without, it
            begins anew. The file goes when the run ends otherwise than paused.
        hurdle: the hurdle of the budget, from 0, at which the run ends until it is to go on, scored
            and kept; None lets it go to the end.
        limit_mb: what the files of the same folder may take; the worst go where it is more. None
            sets no limit.
    """

    file: str
    hurdle: int | None
    limit_mb: int | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One training run to be done by a worker. `dna` is the program's text form; `test` asks for
    the score on the test split too (final phase only: selection never sees it); `weights` is a
    file where the trained weights are to be kept; `start` one of a dense model's weights that the
    run begins with (`workers.model.upcycling`); `task` is what it trains on where that is not
    the worker's own task, which then has the same backend; `pause` says where it is paused."""

    id: int
    dna: str
    budget: Budget
    seed: int
    test: bool = False
    weights: str | None = None
    task: Task | None = field(default=None, hash=False)
    start: str | None = None
    pause: Pause | None = None


@dataclass(frozen=True, slots=True)
class Compiled:
    """A job's training steps as one worker has compiled them for another, and how long that took.
    Jobs of one program and budget share them, whatever their seeds."""

    steps: bytes
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """A job that has ended, with the name of the worker that ran it."""

    job: Job
    outcome: Outcome
    worker: str
