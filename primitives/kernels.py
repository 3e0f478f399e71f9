"""The functions beside keras.ops that lowered programs call.

Arrays are [batch, *branches, T, feature]. An exported layer carries the source of those it uses, so
each stands alone on `ops` and on the ones above it.
"""

from __future__ import annotations

from typing import Any

from keras import ops

Tensor = Any


def hide(x: Tensor, fill: float) -> Tensor:
    """x [..., T, S] with the invisible entries, s > t, set to `fill`."""
    length = ops.shape(x)[-1]
    position = ops.arange(length)
    return ops.where(position[None, :] <= position[:, None], x, ops.cast(fill, x.dtype))


def masked_softmax(x: Tensor) -> Tensor:
    """Softmax over the visible entries of x [..., T, S]; 0 elsewhere. Stable for any size of x."""
    return ops.softmax(hide(x, float("-inf")), axis=-1)


def visible_mean(x: Tensor) -> Tensor:
    """Mean over visible entries, of which row t has t + 1; x is 0 elsewhere."""
    count = ops.cast(ops.arange(1, ops.shape(x)[-1] + 1), x.dtype)
    return ops.sum(x, axis=-1, keepdims=True) / count[:, None]


def reciprocal(x: Tensor) -> Tensor:
    """1 / x, and 0 where x is 0."""
    zero = ops.equal(x, 0)
    safe = ops.where(zero, ops.ones_like(x), x)
    return ops.where(zero, ops.zeros_like(x), 1 / safe)


def project(x: Tensor, kernel: Tensor) -> Tensor:
    """x [batch, *outer branches, T, n] times kernel [*branches, n, m]: [batch, *branches, T, m]. A
    branch axis of x may have size 1, where branches do not differ."""
    outer, inner = len(kernel.shape) - 2, len(x.shape) - 3
    if outer == 0:
        return ops.matmul(x, kernel)
    if inner == outer and x.shape[-2] == 1:  # a row each: no product of matrices
        return ops.sum(x[..., 0, :, None] * kernel, axis=-2)[..., None, :]
    heads = "hijk"[:outer]
    same = [axis for axis in range(inner) if x.shape[1 + axis] == 1 != kernel.shape[axis]]
    if same:
        x = ops.squeeze(x, tuple(1 + axis for axis in same))
    own = "".join(heads[axis] for axis in range(inner) if axis not in same)
    return ops.einsum(f"b{own}tn,{heads}nm->b{heads}tm", x, kernel)


def conv(x: Tensor, kernel: Tensor) -> Tensor:
    """Causal convolution over T: kernel [*branches, taps, n, m], its last tap at the position."""
    taps, n, m = kernel.shape[-3:]
    length = ops.shape(x)[-2]
    padded = ops.pad(x, [[0, 0]] * (len(x.shape) - 2) + [[taps - 1, 0], [0, 0]])
    if len(kernel.shape) == 3:
        return ops.conv(padded, kernel, padding="valid")
    window = ops.concatenate([padded[..., tap : tap + length, :] for tap in range(taps)], axis=-1)
    return project(window, ops.reshape(kernel, (*kernel.shape[:-3], taps * n, m)))


def depthwise_conv(x: Tensor, kernel: Tensor) -> Tensor:
    """Causal convolution over T, each channel by itself: kernel [*branches, taps, n]. Branches and
    channels lie side by side for it, which backends compute fastest."""
    *branches, taps, n = kernel.shape
    batch, length = ops.shape(x)[0], ops.shape(x)[-2]
    if branches:
        x = ops.moveaxis(ops.broadcast_to(x, (batch, *branches, length, n)), -2, 1)
    flat = ops.pad(ops.reshape(x, (batch, length, -1)), [[0, 0], [taps - 1, 0], [0, 0]])
    weights = ops.reshape(ops.moveaxis(kernel, -2, 0), (taps, -1, 1))
    y = ops.depthwise_conv(flat, weights, padding="valid")
    if branches:
        y = ops.moveaxis(ops.reshape(y, (batch, length, *branches, n)), 1, -2)
    return y


def merge_branches(x: Tensor) -> Tensor:
    """[..., n, T, c] -> [..., T, n c]: the results of n branches side by side."""
    *outer, n, length, c = ops.shape(x)
    return ops.reshape(ops.swapaxes(x, -3, -2), (*outer, length, n * c))


def repeat_features(x: Tensor, n: int) -> Tensor:
    """[..., c] -> [..., n c]: n equal results side by side."""
    return ops.concatenate([x] * n, axis=-1)
