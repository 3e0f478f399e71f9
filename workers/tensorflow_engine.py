"""The training engine on TensorFlow.

Many steps run in one call, over windows that the host gathered beforehand, so no step waits for the
host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from primitives.graph import Graph
from primitives.layer import Array, block_function
from workers.engine import Windows
from workers.model import cross_entropy
from workers.optimizer import elementwise, make_optimizer
from workers.parameters import Packing
from workers.task import Task


class TensorFlowEngine:
    """One candidate in training; see `engine.Engine`."""

    def __init__(self, graph: Graph, values: Sequence[Array], task: Task) -> None:
        self._layers = task.model.layers
        self._jit = _use_xla(task)
        self._block = block_function(graph, task.model.d_model)
        if not self._jit:
            # Traced once, called for each layer. Not under XLA: shapes that a function hands to its
            # gradient make XLA take all its inputs for constants, and compile again every step.
            self._block = tf.function(self._block, autograph=False)
        shapes = tuple(value.shape for value in values)
        self._packing = Packing(shapes, elementwise(task.optimizer))
        self._variables = self._packing.variables(values)
        self._optimizer = make_optimizer(task.optimizer)
        self._optimizer.build(self._variables)
        batch = (task.training.batch_size, task.model.sequence_length + 1)
        windows = tf.TensorSpec([None, *batch], tf.int32)
        self._train = tf.function(self._many_steps, autograph=False).get_concrete_function(windows)
        self._score = tf.function(self._many_scores, autograph=False).get_concrete_function(windows)
        self._compile(batch)

    def _compile(self, batch: tuple[int, int]) -> None:
        """Compiles both functions and changes nothing. A call over no windows is enough for a plain
        graph; XLA compiles a step when it first runs, so what that step changed is put back."""
        windows = tf.zeros([int(self._jit), *batch], tf.int32)
        self._score(windows)
        variables = [*self._variables, *self._optimizer.variables]
        before = [tf.identity(variable.value) for variable in variables]
        self._train(windows)
        if self._jit:
            for variable, value in zip(variables, before, strict=True):
                variable.assign(value)

    def train(self, windows: Windows) -> float:
        return float(self._train(tf.constant(windows, tf.int32))) / len(windows)

    def score(self, windows: Windows) -> float:
        return float(self._score(tf.constant(windows, tf.int32))) / len(windows)

    def weights(self) -> list[Array]:
        return [np.asarray(tensor) for tensor in self._tensors()]

    def _tensors(self) -> list[Any]:
        values = [tf.convert_to_tensor(variable.value) for variable in self._variables]
        return self._packing.tensors(values)

    def _loss(self, weights: Sequence[Any], windows: Any) -> Any:
        return cross_entropy(self._block, self._layers, weights, windows)

    def _step(self, windows: Any) -> Any:
        weights = self._tensors()
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            loss = self._loss(weights, windows)
        gradients = tape.gradient(loss, weights, unconnected_gradients="zero")
        self._optimizer.apply(self._packing.packed(gradients), self._variables)
        return loss

    def _many_steps(self, windows: Any) -> Any:
        return _sum_over(windows, self._compiled(self._step))

    def _many_scores(self, windows: Any) -> Any:
        weights = self._tensors()
        return _sum_over(windows, self._compiled(lambda batch: self._loss(weights, batch)))

    def _compiled(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        if not self._jit:
            return function
        compiled: Callable[[Any], Any] = tf.function(function, autograph=False, jit_compile=True)
        return compiled


def _sum_over(windows: Any, function: Callable[[Any], Any]) -> Any:
    """The sum of function(windows[i]), in order, in one device loop."""
    count = tf.shape(windows)[0]

    def body(index: Any, total: Any) -> Any:
        return index + 1, total + function(tf.gather(windows, index))

    return tf.while_loop(lambda index, _: index < count, body, [0, 0.0], parallel_iterations=1)[1]


def _use_xla(task: Task) -> bool:
    if task.training.jit == "auto":
        return bool(
            tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("TPU")
        )
    return task.training.jit == "on"
