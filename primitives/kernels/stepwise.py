"""Functions for a few new positions that follow others: a block run on them alone, with what was
kept of the earlier ones.

Arrays of new positions are [batch, *branches, N, feature], and `start` counts the positions before
them. What is kept of all positions has room for a number of them, `length`, and holds zeros where
none has come yet: [batch, *branches, length, feature]. Over key positions the feature axis has
`length` entries too, of which those up to the position itself are visible.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from primitives.kernels.dense import project

Tensor = Any


def write_rows(kept: Tensor, x: Tensor, start: Tensor) -> Tensor:
    """What is kept of all positions [..., length, n], with x [..., N, n] from `start` on."""
    place = (*[0] * (len(kept.shape) - 2), start, 0)
    return ops.slice_update(kept, place, _like(x, kept))


def join_rows(kept: Tensor, x: Tensor) -> Tensor:
    """The positions kept last, then the new ones."""
    return ops.concatenate([kept, _like(x, kept)], axis=-2)


def last_rows(x: Tensor, n: int) -> Tensor:
    """The last n positions of x."""
    return x[..., -n:, :]


def _like(x: Tensor, kept: Tensor) -> Tensor:
    """x with the branch axes of what is kept: where branches do not differ they may have size 1."""
    if tuple(x.shape[1:-2]) == tuple(kept.shape[1:-2]):
        return x
    return ops.broadcast_to(x, (ops.shape(x)[0], *kept.shape[1:-2], *ops.shape(x)[-2:]))


def hide_later(x: Tensor, fill: float, start: Tensor) -> Tensor:
    """x [..., N, length] with entries of later positions than the row's own set to `fill`."""
    row = start + ops.arange(ops.shape(x)[-2])
    visible = ops.arange(ops.shape(x)[-1]) <= row[:, None]
    return ops.where(visible, x, ops.cast(fill, x.dtype))


def softmax_so_far(x: Tensor, start: Tensor) -> Tensor:
    """Softmax over the visible entries of x [..., N, length]; 0 elsewhere."""
    return ops.softmax(hide_later(x, float("-inf"), start), axis=-1)


def attend_so_far(q: Tensor, k: Tensor, v: Tensor, start: Tensor) -> Tensor:
    """softmax(q k^T) v over the visible keys: q [..., N, n], k [..., length, n], v [..., length,
    m]."""
    scores = ops.matmul(q, ops.swapaxes(k, -1, -2))
    return ops.matmul(softmax_so_far(scores, start), v)


def mean_so_far(x: Tensor, start: Tensor) -> Tensor:
    """Mean over the visible entries of x [..., N, length], which is 0 elsewhere."""
    count = ops.cast(start + ops.arange(1, ops.shape(x)[-2] + 1), x.dtype)
    return ops.sum(x, axis=-1, keepdims=True) / count[:, None]


def conv_within(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolution at the last N of x [..., taps - 1 + N, n]: kernel [*branches, taps, n, m]."""
    taps, n, m = kernel.shape[-3:]
    length = ops.shape(x)[-2] - (taps - 1)
    window = ops.concatenate([x[..., tap : tap + length, :] for tap in range(taps)], axis=-1)
    return project(window, ops.reshape(kernel, (*kernel.shape[:-3], taps * n, m)))


def depthwise_within(x: Tensor, kernel: Tensor) -> Tensor:
    """The same for each channel by itself: kernel [*branches, taps, n]."""
    taps = kernel.shape[-2]
    length = ops.shape(x)[-2] - (taps - 1)
    parts = [x[..., tap : tap + length, :] * kernel[..., tap, None, :] for tap in range(taps)]
    return sum(parts[1:], parts[0])
