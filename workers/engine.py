"""What trains a candidate, on whichever backend Keras runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import keras
import numpy as np
import numpy.typing as npt

from primitives.graph import Graph
from primitives.layer import Array
from workers.task import Task

Windows = npt.NDArray[np.integer[Any]]


class Engine(Protocol):
    """One candidate in training. Making one compiles everything; then `train` and `score` only
    run."""

    def train(self, windows: Windows) -> float:
        """One optimiser step for each of windows [steps, batch, T + 1]; gives the mean loss."""

    def score(self, windows: Windows) -> float:
        """Mean loss, in nats per token, over windows [batches, batch, T + 1]."""

    def weights(self) -> list[Array]:
        """The weights as they stand, in the model's order."""


def make_engine(graph: Graph, values: Sequence[Array], task: Task) -> Engine:
    """The engine of Keras' backend, with these start values."""
    if keras.backend.backend() == "jax":
        from workers.jax_engine import JaxEngine

        return JaxEngine(graph, values, task)
    from workers.tensorflow_engine import TensorFlowEngine

    return TensorFlowEngine(graph, values, task)
