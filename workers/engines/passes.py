"""What one training step and one scored batch compute: the same on every backend.

An engine wraps gradients, the optimiser and a device loop around these pure functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from primitives.graph.build import COMBINE, Graph
from primitives.lowering.layer import Array
from workers.engines.calibration import sums
from workers.engines.engine import Loads, Windows
from workers.engines.optimizer import elementwise
from workers.model.ends import EmbeddingAndHead
from workers.model.learning import training_loss
from workers.model.model import Layer, outer_count, predictions, scoring_loss, with_weights
from workers.model.parameters import Kind, Packing
from workers.model.shape import layer_graphs
from workers.spec.fit import window_length
from workers.spec.objectives import OBJECTIVES
from workers.spec.task import Task

CALL_STEPS = 32
"""Steps of one compiled call under XLA: its shape is fixed, so shorter calls leave places empty."""


@dataclass(frozen=True, slots=True)
class Passes:
    """The passes of one candidate through its model.

    Attributes:
        layers: the model's blocks.
        task: what it is trained for.
        experts: how many each routed call of the model has, layer by layer.
        integer: the type of random seeds on the backend.
        outer: the functions outside the blocks.
    """

    layers: Sequence[Layer]
    task: Task
    experts: Sequence[int]
    integer: str
    outer: EmbeddingAndHead

    @property
    def windows(self) -> tuple[int, int]:
        """The shape of one batch of windows."""
        return self.task.training.batch_size, window_length(self.task)

    def train(
        self, weights: Sequence[Any], windows: Any, step: Any, run: Any
    ) -> tuple[Any, Any, dict[int, Any]]:
        """See `learning.training_loss`; `step` counts those before it, and all noise follows from
        `run`, a number of 31 bits."""
        seed = ops.stack([ops.cast(part, self.integer) for part in (step, run)])
        objective = OBJECTIVES[self.task.training.objective]
        return training_loss(self.layers, weights, windows, seed, objective, self.outer)

    def score(self, weights: Sequence[Any], windows: Any) -> list[Any]:
        """The parts of a slice's score that one batch adds to: loss, weight, and three parts for
        each routed call, see `summed`. Whatever is random in it is the same for every batch."""
        seed, objective = ops.zeros(2, self.integer), OBJECTIVES[self.task.training.objective]
        loss, weight, loads = scoring_loss(
            self.layers, weights, windows, seed, objective, self.outer
        )
        return [loss, weight, *(part for load in loads for part in load)]

    def calibrate(self, weights: Sequence[Any], windows: Any) -> list[Any]:
        """What one batch adds to a slice's calibration, see `calibration.Sums`."""
        seed, objective = ops.zeros(2, self.integer), OBJECTIVES[self.task.training.objective]
        logits, targets, counts = predictions(
            self.layers, weights, windows, seed, objective, self.outer
        )
        return sums(ops.cast(logits, "float32"), targets, counts)

    @property
    def score_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of what `score` gives."""
        return [(), (), *(shape for size in self.experts for shape in ((size,), (), (size,)))]


def experts_of(graph: Graph, task: Task) -> list[int]:
    """How many experts each routed call of the model has, layer by layer."""
    graphs = layer_graphs(graph, task.model)
    return [-node.context[-1] for each in graphs for node in each.nodes if node.op == COMBINE]


def packing_of(
    layers: Sequence[Layer], task: Task, values: Sequence[Array], compiled: bool, lazy: bool
) -> Packing:
    """How the weights lie in variables. Under XLA each has its own: one vector of all makes steps a
    tenth shorter there, and compiling twice as long. Those weights of experts that are trained, and
    of which a step can touch but a part, are tables, where engine and optimiser have a `lazy`
    form."""
    outer = outer_count(layers, values)
    owners = with_weights(layers)
    trainable = [True] * outer + [w.trainable for layer in owners for w in layer.specs]
    gathered = [False] * outer + [flag for layer in owners for flag in layer.gathered]
    together = elementwise(task.optimizer) and not compiled
    lazy = elementwise(task.optimizer) and lazy
    tokens = task.training.batch_size * task.model.sequence_length
    kinds: list[Kind] = []
    for trained, in_part, value in zip(trainable, gathered, values, strict=True):
        rare = lazy and in_part and len(value) > 2 * tokens
        kinds.append("state" if not trained else "table" if rare else "weight")
    return Packing(tuple(value.shape for value in values), tuple(kinds), together)


def calls(windows: Windows) -> Iterator[tuple[Array, int]]:
    """Windows in arrays of CALL_STEPS, the last one filled up, each with how many are real."""
    for start in range(0, len(windows), CALL_STEPS):
        part = windows[start : start + CALL_STEPS]
        filled = np.zeros((CALL_STEPS, *part.shape[1:]), np.int32)
        filled[: len(part)] = part
        yield filled, len(part)


def summed(made: Sequence[Sequence[Any]], count: int) -> tuple[float, Loads]:
    """The score and the loads of `count` batches, from the sums that each call gives: of losses, of
    their weights, and for every routed call of the tokens of its experts, of the dropped shares and
    of its gates.
    The score is not a number where no position counts."""
    total, weight, *loads = (sum(parts) for parts in zip(*made, strict=True))
    calls = zip(loads[::3], loads[1::3], loads[2::3], strict=True)
    loss = float(total) / float(weight) if weight else float("nan")
    return loss, [
        (np.asarray(load), float(share) / count, np.asarray(gates)) for load, share, gates in calls
    ]
