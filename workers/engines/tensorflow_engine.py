"""The training engine on TensorFlow.

Many steps run in one call, over windows that the host gathered beforehand, so no step waits for the
host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from primitives.graph.build import Graph
from primitives.lowering.layer import Array
from workers.engines.engine import CALL_STEPS, Loads, Windows, calls, load_sizes, packing_of, summed
from workers.engines.optimizer import make_optimizer
from workers.engines.tables import LazyAdamW, Rows, squared_norm, touched
from workers.model.model import (
    EMBEDDING_AND_HEAD,
    Apply,
    EmbeddingAndHead,
    model_layers,
    scoring_loss,
    training_loss,
    wrapped,
)
from workers.model.packed import pack_blocks, packed_layers, unpack_blocks
from workers.spec.task import Task


class TensorFlowEngine:
    """One candidate in training; see `engine.Engine`."""

    def __init__(self, graph: Graph, values: Sequence[Array], task: Task, seed: int) -> None:
        self._task, self._seed = task, seed
        self._jit = task.training.jit == "on"
        self._around = EMBEDDING_AND_HEAD if self._jit else _TRACED
        self._layers = layers = model_layers(graph, task)
        self._packing = packing_of(layers, task, values, compiled=self._jit)
        tables = self._packing.of("table", values)
        self._apart: Callable[[list[Array]], list[Array]] = list
        if self._packing.together and not tables:
            self._layers = packed_layers(layers, _traced_once)
            values = pack_blocks(layers, values)
            self._packing = packing_of(self._layers, task, values, compiled=False)
            self._apart = partial(unpack_blocks, layers)
        elif not (self._jit or tables):
            self._layers = wrapped(layers, _traced_once)
        self._sizes = load_sizes(graph, task)
        self._variables = self._packing.variables(values)
        self._states = [tf.Variable(value) for value in self._packing.of("state", values)]
        self._lazy = LazyAdamW(tables, task.optimizer)
        self._optimizer = make_optimizer(task.optimizer, clipped=not tables)
        self._optimizer.build(self._variables)
        self.loads: Loads = []
        batch = (task.training.batch_size, task.model.sequence_length + 1)
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

    def _calls(self, windows: Windows) -> Iterator[tuple[Any, Any]]:
        """Under XLA shapes are fixed; a plain graph takes any number of windows."""
        for part, count in calls(windows) if self._jit else [(windows, len(windows))]:
            yield tf.constant(part, tf.int32), tf.constant(count)

    def weights(self) -> list[Array]:
        tables = self._lazy.tables
        everything = self._packing.all(self._tensors(), self._states, tables)
        return self._apart([np.asarray(tensor) for tensor in everything])

    def _tensors(self) -> list[Any]:
        values = [tf.convert_to_tensor(variable.value) for variable in self._variables]
        return self._packing.tensors(values)

    def _step(self, windows: Any) -> Any:
        weights, states = self._tensors(), [tf.identity(state) for state in self._states]
        step = self._optimizer.iterations
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            tables = [Rows(table, tape) for table in self._lazy.tables]
            total, loss, updates = training_loss(
                self._layers, self._packing.all(weights, states, tables), windows,
                self._random(step), self._task.training.objective, self._around,
            )  # fmt: skip
        taken = [row for table in tables for _, row in table.taken]
        gradients = tape.gradient(total, [*weights, *taken], unconnected_gradients="zero")
        if tables:
            own = touched(tables, gradients[len(weights) :])
            gradients = self._update_tables(own, gradients[: len(weights)], step)
        self._optimizer.apply(self._packing.packed(gradients), self._variables)
        places = [i for i, kind in enumerate(self._packing.kinds) if kind == "state"]
        for place, value in updates.items():
            self._states[places.index(place)].assign(value)
        return loss

    def _update_tables(
        self, rows: list[tuple[Any, Any]], gradients: list[Any], step: Any
    ) -> list[Any]:
        """Steps the tables, and gives the other gradients, clipped by the norm of all."""
        limit = self._task.optimizer.clip_norm
        if limit is not None:
            norm = tf.sqrt(squared_norm(rows) + tf.square(tf.linalg.global_norm(gradients)))
            factor = limit / tf.maximum(norm, limit)
            gradients = [gradient * factor for gradient in gradients]
            rows = [(ids, gradient * factor) for ids, gradient in rows]
        self._lazy.apply(rows, step)
        return gradients

    def _random(self, step: Any) -> Any:
        return tf.stack([tf.cast(step, tf.int32), self._seed & 0x7FFFFFFF])

    def _many_steps(self, windows: Any, count: Any) -> Any:
        return _sum_over(windows, count, [()], lambda batch: [self._step(batch)])[0]

    def _many_scores(self, windows: Any, count: Any) -> Any:
        states = [tf.identity(state) for state in self._states]
        tables: list[Any] = [Rows(table, None) for table in self._lazy.tables]
        weights = self._packing.all(self._tensors(), states, tables)

        def score(batch: Any) -> list[Any]:
            objective, seed = self._task.training.objective, tf.zeros([2], tf.int32)
            loss, loads = scoring_loss(self._layers, weights, batch, seed, objective, self._around)
            return [loss, *(part for load in loads for part in load)]

        shapes = [(), *(shape for size in self._sizes for shape in ((size,), ()))]
        return _sum_over(windows, count, shapes, score)


_TRACED = EmbeddingAndHead(*(tf.function(part, autograph=False) for part in EMBEDDING_AND_HEAD))
"""Traced by a worker's first candidate, and read by all that follow."""


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
