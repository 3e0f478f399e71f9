"""`tables` on TensorFlow, in graphs without XLA: how many rows a step touches follows from
values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from primitives.lowering.layer import Array
from workers.engines.tables import Touched, stepped
from workers.spec.task import OptimizerSpec


class Rows:
    """A table in one pass: it gives rows, and remembers which, so that gradients are taken by the
    rows instead of by the table."""

    def __init__(self, table: Any, tape: tf.GradientTape | None) -> None:
        self.table, self.tape, self.shape = table, tape, table.shape
        self.taken: list[tuple[Any, Any]] = []

    def rows(self, ids: Any) -> Any:
        rows = tf.gather(self.table, ids)
        if self.tape is not None:
            self.tape.watch(rows)
            self.taken.append((ids, rows))
        return rows


class LazyAdamW:
    """Tables with their moments, see `tables`."""

    def __init__(self, values: Sequence[Array], spec: OptimizerSpec) -> None:
        self.tables = [tf.Variable(value) for value in values]
        self._moments = [(tf.Variable(tf.zeros_like(t)), tf.Variable(tf.zeros_like(t)))
                         for t in self.tables]  # fmt: skip
        self._spec = spec

    @property
    def variables(self) -> list[Any]:
        """The tables and their moments."""
        return [*self.tables, *(moment for pair in self._moments for moment in pair)]

    def apply(self, gradients: Sequence[Touched], step: Any) -> None:
        """One step; `step` counts those before it."""
        for table, moments, (ids, gradient) in zip(
            self.tables, self._moments, gradients, strict=True
        ):
            variables = (table, *moments)
            weights, first, second = (tf.gather(variable, ids) for variable in variables)
            made = stepped((weights, first, second), gradient, step, self._spec)
            for variable, value in zip(variables, made, strict=True):
                variable.scatter_update(tf.IndexedSlices(value, ids))


def touched(tables: Sequence[Rows], gradients: Sequence[Any]) -> list[Touched]:
    """For each table the rows that were touched, from the gradients of every read in order."""
    remaining = iter(gradients)
    return [_summed([(ids, next(remaining)) for ids, _ in table.taken]) for table in tables]


def _summed(parts: Sequence[tuple[Any, Any]]) -> Touched:
    """Of reads (ids [...], gradients [..., *row]): each id once, and the sum of its gradients."""
    shape = parts[0][1].shape[parts[0][0].shape.rank :]
    ids = tf.concat([tf.reshape(ids, [-1]) for ids, _ in parts], 0)
    gradient = tf.concat([tf.reshape(gradient, [-1, *shape]) for _, gradient in parts], 0)
    distinct, place = tf.unique(ids)
    total = tf.math.unsorted_segment_sum(gradient, place, tf.size(distinct))
    return distinct, total
