"""How positions enter a model that has learned none.

Arrays are [..., T, feature], and `start` counts the positions before the first one.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

Tensor = Any


def _waves(x: Tensor, pairs: int, start: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines [T, pairs] of angles that grow by 10000^(-i / pairs) with each position of
    x. Angles are computed in float32 at least: bfloat16 has no odd position above 256."""
    dtype = keras.backend.result_type(x.dtype, "float32")
    position = ops.cast(start + ops.arange(ops.shape(x)[-2]), dtype)
    pace = ops.exp(ops.arange(pairs, dtype=dtype) * (-math.log(10000.0) / pairs))
    angle = position[:, None] * pace
    return ops.cast(ops.cos(angle), x.dtype), ops.cast(ops.sin(angle), x.dtype)


def rotated(x: Tensor, start: Tensor = 0) -> Tensor:
    """x with its features rotated by position (Su et al. 2021): of n features, number i and number
    i + n // 2 are a point of a plane, which is turned about the origin. An odd feature stays as it
    is. The product of two rotated states depends on how far apart their positions are, not on where
    they stand."""
    half = x.shape[-1] // 2
    if half == 0:
        return x
    cos, sin = _waves(x, half, start)
    one, other, odd = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return ops.concatenate([one * cos - other * sin, one * sin + other * cos, odd], axis=-1)


def with_sinusoids(x: Tensor, start: Tensor = 0) -> Tensor:
    """x with waves of its positions added (Vaswani et al. 2017, section 3.5), sines in the first
    half of an even number n of features, cosines in the second. They are sqrt(2 / n) high: as large
    as the embeddings of tokens are when training begins."""
    n = x.shape[-1]
    cos, sin = _waves(x, n // 2, start)
    return x + (2.0 / n) ** 0.5 * ops.concatenate([sin, cos], axis=-1)
