"""How much memory training a program takes, estimated from its static cost alone.

No framework is imported. `Footprint.total` is what a run takes if nothing that its backward pass
reads is fused away or computed again; `Footprint.least` is what no run can do without, whatever a
compiler finds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from primitives.graph.build import Graph
from primitives.lowering.cost import BYTES, Cost, training_passes
from workers.spec.fit import task_cost
from workers.spec.objectives import OBJECTIVES
from workers.spec.task import Task

MB = 2**20

SLOTS = {"adamw": 2, "adafactor": 0}
"""Optimiser states as large as the parameters; Adafactor keeps sums over rows and columns."""

KEPT = 0.02
"""The share of a program's activations that training holds at once at the least. Compilers fuse
elementwise operations, and a fused attention never holds its scores. Measured on CPU, 11 seed
programs on TensorFlow and all 28 on JAX took 0.44 to 1.71 of the whole estimate, and a chain of 90
elementwise operations over attention scores 0.53 (tests/benchmarks/footprint.py): this share is
less than a twentieth of that."""

LOGITS = 2
"""Arrays as large as the logits: these, and their gradient."""


@dataclass(frozen=True, slots=True)
class Term:
    """A part of the memory, in bytes; `least` of them cannot be done without. `fix` says how it
    gets smaller."""

    name: str
    bytes: float
    least: float
    fix: str


@dataclass(frozen=True, slots=True)
class Footprint:
    """The memory of one training run, by what takes it."""

    terms: tuple[Term, ...]

    @property
    def total(self) -> float:
        """Bytes that a run takes, where a compiler saves nothing."""
        return sum(term.bytes for term in self.terms)

    @property
    def least(self) -> float:
        """Bytes without which no run trains."""
        return sum(term.least for term in self.terms)

    def largest(self, size: Callable[[Term], float]) -> Term:
        return max(self.terms, key=size)


def footprint(graph: Graph, task: Task, vocabulary: int, cost: Cost | None = None) -> Footprint:
    """What training the program takes in the task. `vocabulary` counts the corpus' tokens; `cost`
    is `fit.task_cost` of the same arguments, where it is known."""
    cost = cost or task_cost(graph, task, vocabulary)
    training, length = task.training, task.model.sequence_length
    rows = vocabulary + OBJECTIVES[training.objective].extra_rows
    weights = float(cost.parameters * BYTES)
    slots = SLOTS[task.optimizer.name] * weights
    passes = training_passes(graph)
    logits = float(passes * training.batch_size * length * rows * BYTES)
    inner = max(0.0, cost.activation_bytes - length * vocabulary * BYTES)
    kept = passes * training.batch_size * inner
    return Footprint(
        (
            Term("parameters", weights, weights, _WIDTHS),
            Term("gradients", weights, 0.0, _WIDTHS),
            Term(
                "optimiser states",
                slots,
                slots,
                "set task.optimizer.name to adafactor, or " + _WIDTHS,
            ),
            Term("activations", kept, KEPT * kept, _LENGTHS),
            Term("logits", LOGITS * logits, logits, _LOGITS),
        )
    )


_WIDTHS = "lower task.model.d_model or task.model.layers"
_LENGTHS = "lower task.training.batch_size, task.model.sequence_length or task.model.layers"
_LOGITS = "lower task.training.batch_size, task.model.sequence_length or task.data.vocabulary"
