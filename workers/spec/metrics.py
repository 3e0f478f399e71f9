"""What a run is measured by: one table, from which outcome, database, queries and printing read.

A new metric is a row with a `measure`. A worker calls it when a run has ended; the value then goes
into the outcome, the database and every record, and `top --by` ranks by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from primitives.registry import Registry
from workers.spec.outcome import Measurement, Outcome, perplexity

if TYPE_CHECKING:
    from primitives.graph.build import Graph
    from primitives.lowering.cost import Cost
    from workers.spec.task import Task

Score = TypeVar("Score", float, float | None)
Better = Literal["lower", "higher", "none"]
Where = Literal["static", "training", "validation", "test", "routing"]


class Run(Protocol):
    """What a metric may look at: a training run that has ended, whatever its status.

    `graph` is the program, `cost` its static cost at the task's sizes. `engine` holds the trained
    model; it is None where training never began. `curve` has a point for each time that the run was
    scored, and `usage` says how its experts were used on the last one (`workers.training.usage`).
    `tested` holds what was measured on the test splits at the end of a final run.
    """

    graph: Graph
    cost: Cost
    task: Task
    engine: Any
    steps: int
    train_seconds: float
    curve: list[Measurement]
    usage: Mapping[str, float]
    tested: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Metric:
    """A row of METRICS.

    `name` is its key in records, in JSON and in the database. `better` says which of two values is
    the better one; `top` lists the better first, and the lower where neither is. `where` says what
    it is measured on: static cost, training, a score on the validation or the test split, or the
    routing of validation tokens. Runs of the search never see the test split, so their records have
    no metric of it.

    `column` names a field of Outcome that has a column of its own in the database; the metric is
    `form` of it, a rising function. Other metrics live in the mapping `metrics` of an outcome and
    in the JSON column of that name; `measure` gives such a value at the end of a run, or None.
    `listed` metrics have a column in the tables that a person reads, which are to fit 80 columns;
    `top --wide` and JSON have all of them.
    """

    name: str
    unit: str
    better: Better
    meaning: str
    where: Where
    column: str | None = None
    form: Callable[[float], float] | None = None
    measure: Callable[[Run], float | None] | None = None
    listed: bool = False

    def of(self, outcome: Outcome) -> float | None:
        """The outcome's value; None where it was not measured."""
        if self.column is None:
            return outcome.metrics.get(self.name)
        return self.formed(getattr(outcome, self.column))

    def formed(self, value: float | None) -> float | None:
        """The metric where its column holds `value`."""
        return value if self.form is None or value is None else self.form(value)


def measured(run: Run) -> dict[str, float]:
    """The metrics of a run that have no column of their own; numbers that are not finite are left
    out, because neither JSON nor a ranking has a place for them."""
    found: dict[str, float | None] = {}
    for name, row in METRICS.items():
        if row.measure is not None:
            try:
                found[name] = row.measure(run)
            except Exception as error:
                error.add_note(f"while the metric '{name}' was measured")
                raise
    found |= by_task(run.tested)
    return {name: value for name, value in found.items() if value is not None and isfinite(value)}


_OF_TASK = "/"
"""Between a metric's name and that of a task, in the names of scores of a single task: no row of
METRICS has it in its name, since which tasks there are a corpus decides."""


def of_task(split: str, task: str) -> str:
    """A form for the names of a task's scores: `test_{}/speeches`, for "loss" and "bpb"."""
    return f"{split}_{{}}{_OF_TASK}{task.replace('{', '(').replace('}', ')')}"


def by_task(scores: Mapping[str, Score]) -> dict[str, Score]:
    """The scores of single tasks among these."""
    return {name: value for name, value in scores.items() if _OF_TASK in name}


def all_scores(outcome: Outcome) -> dict[str, float | None]:
    """Every metric of an outcome by name, None where it was not measured; then those of single
    tasks."""
    return {name: row.of(outcome) for name, row in METRICS.items()} | by_task(outcome.metrics)


def _usage(name: str) -> Callable[[Run], float | None]:
    return lambda run: run.usage.get(name)


def _tested(name: str) -> Callable[[Run], float | None]:
    return lambda run: run.tested.get(name)


METRICS: Registry[Metric] = Registry(
    "metric",
    (
        Metric("val_loss", "nats a token", "lower", "cross entropy", "validation", "val_loss"),
        Metric(
            "val_bpb", "bits a byte", "lower", "cross entropy", "validation",
            "val_bpb", listed=True,
        ),
        Metric(
            "val_perplexity", "tokens", "lower", "exp(val_loss)", "validation",
            "val_loss", perplexity,
        ),
        Metric(
            "test_loss", "nats a token", "lower", "cross entropy", "test",
            "test_loss", listed=True,
        ),
        Metric(
            "test_bpb", "bits a byte", "lower", "cross entropy", "test",
            "test_bpb", listed=True,
        ),
        Metric(
            "test_ece", "share", "lower", "expected calibration error, 15 bins", "test",
            measure=_tested("test_ece"),
        ),
        Metric(
            "test_brier", "squares", "lower", "squared distance of probabilities from what came",
            "test", measure=_tested("test_brier"),
        ),
        Metric(
            "transfer_loss", "nats a token", "lower", "cross entropy on task.transfer", "test",
            measure=_tested("transfer_loss"),
        ),
        Metric(
            "transfer_bpb", "bits a byte", "lower", "cross entropy on task.transfer", "test",
            measure=_tested("transfer_bpb"),
        ),
        Metric(
            "params", "weights", "lower", "trainable weights", "static",
            "params", listed=True,
        ),
        Metric(
            "active_params", "weights", "lower", "weights that work on one token", "static",
            "active_params",
        ),
        Metric(
            "flops_per_token", "FLOPs", "lower", "of the forward pass", "static",
            "flops_per_token", listed=True,
        ),
        Metric(
            "step_time_s", "seconds", "lower", "one step, on average", "training", "step_time_s"
        ),
        Metric(
            "train_seconds", "seconds", "none", "device time", "training",
            "train_seconds",
        ),
        Metric(
            "setup_seconds", "seconds", "lower", "all but training", "training", "setup_seconds"
        ),
        Metric("steps", "steps", "none", "optimiser steps", "training", "steps"),
        Metric("tokens", "tokens", "none", "tokens trained on", "training", "tokens"),
        Metric(
            "activation_bytes", "bytes a sequence", "lower",
            "float32 activations that the backward pass reads, of all layers", "static",
            measure=lambda run: run.cost.activation_bytes,
        ),
        Metric(
            "bytes_per_token", "bytes", "lower",
            "read and written by the forward pass, float32", "static",
            measure=lambda run: run.cost.bytes_per_token,
        ),
        Metric(
            "experts_used", "share", "higher", "experts that any token went to", "routing",
            measure=_usage("used"),
        ),
        Metric(
            "experts_unevenness", "nats", "lower", "KL divergence of the load from an even one",
            "routing", measure=_usage("unevenness"),
        ),
        Metric(
            "experts_gate_unevenness", "nats", "lower",
            "KL divergence of the gates' sums from even ones", "routing",
            measure=_usage("gate_unevenness"),
        ),
        Metric(
            "experts_max_violation", "mean loads", "lower", "largest load over the mean, less 1",
            "routing", measure=_usage("max_violation"),
        ),
        Metric(
            "experts_dropped", "share", "lower", "choices that full buffers would drop", "routing",
            measure=_usage("dropped"),
        ),
    ),
)  # fmt: skip
