"""Expert tables of which a step touches a few rows: a million experts train at the cost of those
that tokens were routed to. TensorFlow only; elsewhere such weights train like all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from primitives.lowering.layer import Array
from workers.engines.optimizer import WarmupRsqrt
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
    """AdamW on the rows that a step touched, and on no others.

    It differs from the dense optimiser in what happens to a row that no token was routed to: there
    the moments decay at every step, and the row goes on moving with what is left of them; here row
    and moments stay as they are. Bias correction counts all steps, as in the dense one, and weight
    decay reaches touched rows only. Where every row is touched at every step both are the same
    (LazyAdam of TensorFlow Addons does likewise).
    """

    def __init__(self, values: Sequence[Array], spec: OptimizerSpec) -> None:
        self.tables = [tf.Variable(value) for value in values]
        self._moments = [(tf.Variable(tf.zeros_like(t)), tf.Variable(tf.zeros_like(t)))
                         for t in self.tables]  # fmt: skip
        self._spec, self._rate = spec, WarmupRsqrt(spec.learning_rate, spec.warmup_steps)

    def apply(self, gradients: Sequence[tuple[Any, Any]], step: Any) -> None:
        """One step; `step` counts those before it."""
        spec, rate = self._spec, self._rate(step)
        count = tf.cast(step, tf.float32) + 1.0
        scale = tf.sqrt(1 - spec.beta_2**count) / (1 - spec.beta_1**count)
        for table, (first, second), (ids, gradient) in zip(
            self.tables, self._moments, gradients, strict=True
        ):
            m = spec.beta_1 * tf.gather(first, ids) + (1 - spec.beta_1) * gradient
            v = spec.beta_2 * tf.gather(second, ids) + (1 - spec.beta_2) * tf.square(gradient)
            rows = tf.gather(table, ids) * (1 - rate * spec.weight_decay)
            rows -= rate * scale * m / (tf.sqrt(v) + 1e-7)
            for variable, value in ((first, m), (second, v), (table, rows)):
                variable.scatter_update(tf.IndexedSlices(value, ids))


def squared_norm(gradients: Sequence[tuple[Any, Any]]) -> Any:
    """Of all gradients together."""
    return tf.add_n([tf.reduce_sum(tf.square(gradient)) for _, gradient in gradients])


def touched(tables: Sequence[Rows], gradients: Sequence[Any]) -> list[tuple[Any, Any]]:
    """For each table the rows that were touched, each once, and their gradients, from those of
    every read in order."""
    remaining = iter(gradients)
    return [_summed([(ids, next(remaining)) for ids, _ in table.taken]) for table in tables]


def _summed(parts: Sequence[tuple[Any, Any]]) -> tuple[Any, Any]:
    """Of reads (ids [...], gradients [..., *row]): each id once, and the sum of its gradients."""
    shape = parts[0][1].shape[parts[0][0].shape.rank :]
    ids = tf.concat([tf.reshape(ids, [-1]) for ids, _ in parts], 0)
    gradient = tf.concat([tf.reshape(gradient, [-1, *shape]) for _, gradient in parts], 0)
    distinct, place = tf.unique(ids)
    total = tf.math.unsorted_segment_sum(gradient, place, tf.size(distinct))
    return distinct, total
