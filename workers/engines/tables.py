"""Expert tables of which a step touches a few rows: a million experts train at the cost of those
that tokens were routed to. What a step does to the rows that it touched, on any backend.

AdamW is applied to these rows and to no others. It differs from the dense optimiser in what happens
to a row that no token was routed to: there the moments decay at every step, and the row goes on
moving with what is left of them; here row and moments stay as they are. Bias correction counts all
steps, as in the dense one, and weight decay reaches touched rows only. Where every row is touched
at every step both are the same (LazyAdam of TensorFlow Addons does likewise).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import ops

from workers.engines.optimizer import WarmupRsqrt
from workers.spec.task import OptimizerSpec

Touched = tuple[Any, Any]
"""Of a table the rows [n] that were touched, each once, and their gradients [n, *row]."""


def stepped(
    rows: tuple[Any, Any, Any], gradient: Any, step: Any, spec: OptimizerSpec
) -> tuple[Any, Any, Any]:
    """Rows [n, *row] of a table and of its two moments after a step; `step` counts those before
    it."""
    weights, first, second = rows
    rate = WarmupRsqrt(spec.learning_rate, spec.warmup_steps)(step)
    count = ops.cast(step, "float32") + 1.0
    scale = ops.sqrt(1 - spec.beta_2**count) / (1 - spec.beta_1**count)
    first = spec.beta_1 * first + (1 - spec.beta_1) * gradient
    second = spec.beta_2 * second + (1 - spec.beta_2) * ops.square(gradient)
    weights = weights * (1 - rate * spec.weight_decay)
    return weights - rate * scale * first / (ops.sqrt(second) + 1e-7), first, second


def clipped(
    limit: float | None, gradients: Sequence[Any], tables: Sequence[Touched]
) -> tuple[list[Any], list[Touched]]:
    """Gradients of weights and of tables' rows, scaled so that the norm of all together is at most
    `limit`."""
    if limit is None:
        return list(gradients), list(tables)
    everything = [*gradients, *(gradient for _, gradient in tables)]
    norm = ops.sqrt(sum(ops.sum(ops.square(each)) for each in everything))
    factor = limit / ops.maximum(norm, limit)
    return (
        [gradient * factor for gradient in gradients],
        [(ids, gradient * factor) for ids, gradient in tables],
    )
