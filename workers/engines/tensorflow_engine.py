"""The training engine on TensorFlow.

Many steps run in one call, over windows that the host gathered beforehand, so no step waits for the
host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import tensorflow as tf

from primitives.graph.build import Graph
from primitives.lowering.layer import Array
from workers.engines.calibration import SHAPES
from workers.engines.engine import Loads, Windows, check_kept
from workers.engines.optimizer import make_optimizer
from workers.engines.passes import CALL_STEPS, Passes, calls, experts_of, packing_of, summed
from workers.engines.tables import clipped
from workers.engines.tensorflow_tables import LazyAdamW, Rows, touched
from workers.model.ends import EmbeddingAndHead, embedding_and_head
from workers.model.model import Apply, Layer, model_layers, wrapped
from workers.model.packed import pack_blocks, packed_layers, unpack_blocks
from workers.spec.task import Task


class TensorFlowEngine:
    """One candidate in training; see `engine.Engine`."""

    def __init__(self, graph: Graph, values: Sequence[Array], task: Task, seed: int) -> None:
        self._task, self._run = task, seed & 0x7FFFFFFF
        self._jit = task.training.jit == "on"
        layers: Sequence[Layer] = model_layers(graph, task)
        how = self._jit, not self._jit  # under XLA there is no lazy form here
        self._packing = packing_of(layers, task, values, *how)
        tables = self._packing.of("table", values)
        self._unpacked: Callable[[list[Array]], list[Array]] = list
        if self._packing.together and not tables:
            self._unpacked = partial(unpack_blocks, layers)
            values = pack_blocks(layers, values)
            layers = packed_layers(layers, _traced_once)
            self._packing = packing_of(layers, task, values, *how)
        elif not (self._jit or tables):
            layers = wrapped(layers, _traced_once)
        outer = embedding_and_head(task.model)
        outer = outer if self._jit else _traced(outer)
        self._passes = Passes(layers, task, experts_of(graph, task), "int32", outer)
        self._variables = self._packing.variables(values)
        self._states = [tf.Variable(value) for value in self._packing.of("state", values)]
        self._lazy = LazyAdamW(tables, task.optimizer)
        self._optimizer = make_optimizer(task.optimizer, clipped=not tables)
        self._optimizer.build(self._variables)
        self.loads: Loads = []
        self._calibrate: Any = None
        batch = self._passes.windows
        self._train, self._score = (
            tf.function(function, autograph=False, jit_compile=self._jit).get_concrete_function(
                tf.TensorSpec([CALL_STEPS if self._jit else None, *batch], tf.int32),
                tf.TensorSpec([], tf.int32),
            )
            for function in (self._many_steps, self._many_scores)
        )
        windows = tf.zeros([CALL_STEPS if self._jit else 0, *batch], tf.int32)
        for function in (self._score, self._train):  # a call that does no step compiles everything
            function(windows, tf.constant(0))

    def train(self, windows: Windows) -> float:
        total = 0.0
        for part, count in self._calls(windows):
            total += self._train(part, count)
        return float(total) / len(windows)

    def score(self, windows: Windows) -> float:
        made = [self._score(part, count) for part, count in self._calls(windows)]
        loss, self.loads = summed(made, len(windows))
        return loss

    def calibrate(self, windows: Windows) -> list[Array]:
        if self._calibrate is None:
            self._calibrate = tf.function(self._many_calibrations, autograph=False)
        made = self._calibrate(tf.constant(windows, tf.int32), tf.constant(len(windows)))
        return [np.asarray(part) for part in made]

    def _calls(self, windows: Windows) -> Iterator[tuple[Any, Any]]:
        """Under XLA shapes are fixed; a plain graph takes any number of windows."""
        for part, count in calls(windows) if self._jit else [(windows, len(windows))]:
            yield tf.constant(part, tf.int32), tf.constant(count)

    def weights(self) -> list[Array]:
        tables = self._lazy.tables
        everything = self._packing.all(self._tensors(), self._states, tables)
        return self._unpacked([np.asarray(tensor) for tensor in everything])

    def _tensors(self) -> list[Any]:
        values = [tf.convert_to_tensor(variable.value) for variable in self._variables]
        return self._packing.tensors(values)

    def kept(self) -> list[Array]:
        return [np.asarray(each) for each in self._everything()]

    def restore(self, kept: Sequence[Array]) -> None:
        check_kept(self.kept(), kept)
        for each, value in zip(self._everything(), kept, strict=True):
            each.assign(value)

    def _everything(self) -> list[Any]:
        """All variables that a step changes."""
        optimizers = [*self._optimizer.variables, *self._lazy.variables]
        return [*self._variables, *optimizers, *self._states]

    def _step(self, windows: Any) -> Any:
        weights, states = self._tensors(), [tf.identity(state) for state in self._states]
        step = self._optimizer.iterations
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            tables = [Rows(table, tape) for table in self._lazy.tables]
            everything = self._packing.all(weights, states, tables)
            total, loss, updates = self._passes.train(everything, windows, step, self._run)
        taken = [row for table in tables for _, row in table.taken]
        gradients = tape.gradient(total, [*weights, *taken], unconnected_gradients="zero")
        if tables:
            own = touched(tables, gradients[len(weights) :])
            limit = self._task.optimizer.clip_norm
            gradients, own = clipped(limit, gradients[: len(weights)], own)
            self._lazy.apply(own, step)
        self._optimizer.apply(self._packing.packed(gradients), self._variables)
        places = self._packing.places("state")
        for place, value in updates.items():
            self._states[places.index(place)].assign(value)
        return loss

    def _many_steps(self, windows: Any, count: Any) -> Any:
        return _sum_over(windows, count, [()], lambda batch: [self._step(batch)])[0]

    def _many_scores(self, windows: Any, count: Any) -> Any:
        score = partial(self._passes.score, self._as_they_stand())
        return _sum_over(windows, count, self._passes.score_shapes, score)

    def _many_calibrations(self, windows: Any, count: Any) -> Any:
        calibrate = partial(self._passes.calibrate, self._as_they_stand())
        return _sum_over(windows, count, SHAPES, calibrate)

    def _as_they_stand(self) -> list[Any]:
        """All weights, for a pass that changes none."""
        states = [tf.identity(state) for state in self._states]
        tables: list[Any] = [Rows(table, None) for table in self._lazy.tables]
        return self._packing.all(self._tensors(), states, tables)


@cache
def _traced(outer: EmbeddingAndHead) -> EmbeddingAndHead:
    """The same, traced by a worker's first candidate, and read by all that follow."""
    return EmbeddingAndHead(*(tf.function(part, autograph=False) for part in outer))


def _traced_once(block: Apply) -> Apply:
    """Traced once, called for each layer. Not under XLA: shapes that a function hands to its
    gradient make XLA take all its inputs for constants, and compile again every step."""
    traced: Apply = tf.function(block, autograph=False)
    return traced


def _sum_over(
    windows: Any, count: Any, shapes: Sequence[tuple[int, ...]], function: Callable[[Any], Any]
) -> list[Any]:
    """The sums of what function(windows[i]) gives for the first `count`, in order, in one device
    loop. Under XLA the loop is compiled whole: a compiled step in a loop that is not takes a third
    longer."""

    def body(index: Any, *totals: Any) -> Any:
        made = function(tf.gather(windows, index))
        return index + 1, *(total + part for total, part in zip(totals, made, strict=True))

    start = [0, *(tf.zeros(shape) for shape in shapes)]
    loop = tf.while_loop(lambda index, *_: index < count, body, start, parallel_iterations=1)
    return list(loop[1:])
