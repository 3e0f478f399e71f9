"""What a student learns of the whole model, its teacher: the predictions, and the states between
blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import ops

CHOSEN_LAYERS = 4
"""Teacher layers at most whose states a student learns."""


def chosen_layers(count: int) -> tuple[int, ...]:
    """Up to CHOSEN_LAYERS of so many layers at even distances, the last one among them."""
    chosen = min(count, CHOSEN_LAYERS)
    return tuple((i + 1) * count // chosen - 1 for i in range(chosen))


def prediction_loss(student: Any, teacher: Any, counts: Any = None) -> Any:
    """Mean divergence of the student's predictions from the teacher's, KL(teacher, student) in nats
    a position, of logits [batch, T, rows]; weighed by `counts` [batch, T] where given."""
    theirs = ops.log_softmax(teacher, axis=-1)
    ours = ops.log_softmax(student, axis=-1)
    each = ops.sum(ops.exp(theirs) * (theirs - ours), axis=-1)
    if counts is None:
        return ops.mean(each)
    return ops.sum(each * counts) / ops.maximum(ops.sum(counts), 1e-6)


def layer_loss(student: Sequence[Any], teacher: Sequence[Any], matrix: Any) -> Any:
    """Mean over the chosen layers of the teacher of the mean square of W h - H, in parts of that of
    H: H is the teacher's state [batch, T, d_model], h the student's that comes nearest to it, found
    anew at each call, and W the learned `matrix` [d_model, d_model]. A student without layers
    learns nothing here.

    CoFi sums the squares as they are. Its states have been normalised; in a residual stream without
    norms they grow from layer to layer, and their squares would drown the loss on tokens."""
    if not student:
        return 0.0
    mapped = [ops.matmul(state, matrix) for state in student]
    total: Any = 0.0
    chosen = chosen_layers(len(teacher))
    for number in chosen:
        errors = [ops.mean(ops.square(state - teacher[number])) for state in mapped]
        whole = ops.mean(ops.square(teacher[number]))
        total = total + ops.min(ops.stack(errors)) / ops.maximum(whole, 1e-6)
    return total / len(chosen)
