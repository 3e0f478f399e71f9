"""What trains a candidate, on whichever backend Keras runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import numpy.typing as npt

from primitives.graph.build import COMBINE, Graph
from primitives.lowering.layer import Array
from workers.engines.optimizer import elementwise
from workers.model.model import OUTER, Layer, layer_graphs
from workers.model.parameters import Kind, Packing
from workers.spec.task import Task

Windows = npt.NDArray[np.integer[Any]]

CALL_STEPS = 32
"""Steps of one compiled call under XLA: its shape is fixed, so shorter calls leave places empty."""

Loads = list[tuple[Array, float]]
"""For each routed call of the model, layer by layer: how many tokens each expert got, and the share
of entries that a full buffer would have dropped."""


class Engine(Protocol):
    """One candidate in training. Making one compiles everything; then `train` and `score` only
    run."""

    loads: Loads
    """Of the last `score`."""

    def train(self, windows: Windows) -> float:
        """One optimiser step for each of windows [steps, batch, T + 1]; gives the mean loss."""

    def score(self, windows: Windows) -> float:
        """Mean loss, in nats per token, over windows [batches, batch, T + 1]."""

    def weights(self) -> list[Array]:
        """The weights as they stand, in the model's order."""


def make_engine(graph: Graph, values: Sequence[Array], task: Task, seed: int = 0) -> Engine:
    """The engine of Keras' backend, with these start values; noise follows from `seed`."""
    if keras.backend.backend() == "jax":
        from workers.engines.jax_engine import JaxEngine

        return JaxEngine(graph, values, task, seed)
    from workers.engines.tensorflow_engine import TensorFlowEngine

    return TensorFlowEngine(graph, values, task, seed)


def packing_of(
    layers: Sequence[Layer], task: Task, values: Sequence[Array], compiled: bool
) -> Packing:
    """How the weights lie in variables. Under XLA each has its own: one vector of all makes steps a
    tenth shorter there, and compiling twice as long. In plain graphs experts' weights of which a
    step can touch but a part are tables, where the optimiser has a lazy form."""
    trainable = [True] * len(OUTER) + [w.trainable for layer in layers for w in layer.specs]
    copies = [False] * len(OUTER) + [flag for layer in layers for flag in layer.gathered]
    together = elementwise(task.optimizer) and not compiled
    tokens = task.training.batch_size * task.model.sequence_length
    kinds: list[Kind] = []
    for trained, copied, value in zip(trainable, copies, values, strict=True):
        rare = together and copied and len(value) > 2 * tokens
        kinds.append("table" if rare else "weight" if trained else "state")
    return Packing(tuple(value.shape for value in values), tuple(kinds), together)


def calls(windows: Windows) -> Iterator[tuple[Array, int]]:
    """Windows in arrays of CALL_STEPS, the last one filled up, each with how many are real."""
    for start in range(0, len(windows), CALL_STEPS):
        part = windows[start : start + CALL_STEPS]
        filled = np.zeros((CALL_STEPS, *part.shape[1:]), np.int32)
        filled[: len(part)] = part
        yield filled, len(part)


def summed(made: Sequence[Sequence[Any]], count: int) -> tuple[float, Loads]:
    """The mean loss over `count` batches and the loads, from what each call gives: the sum of its
    losses, and for every routed call the tokens of its experts and a sum of shares."""
    total, *loads = (sum(parts) for parts in zip(*made, strict=True))
    pairs = zip(loads[::2], loads[1::2], strict=True)
    return float(total) / count, [(np.asarray(load), float(share) / count) for load, share in pairs]


def load_sizes(graph: Graph, task: Task) -> list[int]:
    """How many experts each routed call of the model has, layer by layer."""
    graphs = layer_graphs(graph, task.model)
    return [-node.context[-1] for each in graphs for node in each.nodes if node.op == COMBINE]
