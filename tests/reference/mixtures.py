"""What routings are made of, one token at a time, in float64. A tie goes to the lower index."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Weights = Mapping[str, Array]


def softmax(v: Array) -> Array:
    powers = np.exp(v - v.max())
    p: Array = powers / powers.sum()
    return p


def sigmoid(v: Array) -> Array:
    return 1 / (1 + np.exp(-v))


def softplus(v: Array) -> Array:
    return np.logaddexp(0, v)


def top_k(v: Array, k: int) -> Ids:
    """Positions of the k largest of v [n], largest first."""
    return np.argsort(-v, kind="stable")[:k]


def rounded_up(share: float, count: int) -> int:
    """ceil(share * count), where 0.1 * 30 counts as 3."""
    return math.ceil(share * count - 1e-9)


def feed_forward(v: Array, up: Array, down: Array) -> Array:
    """So et al. 2021 (Primer), squared ReLU."""
    return np.maximum(v @ up, 0) ** 2 @ down


def expert(i: int, v: Array, w: Weights) -> Array:
    return feed_forward(v, w["up"][i], w["down"][i])


def combine(v: Array, ids: Ids, gates: Array, w: Weights) -> Array:
    """Sum over the chosen experts of gate * E_id(v)."""
    y = np.zeros_like(v)
    for i, gate in zip(ids, gates, strict=True):
        y += gate * expert(i, v, w)
    return y


def each_token(layer: Callable[..., Array], x: Array, *beside: npt.NDArray[np.generic]) -> Array:
    """layer(x[b, t], *(a[b, t] for a in beside)) for every b, t."""
    x = np.asarray(x, np.float64)
    y = np.zeros_like(x)
    for at in np.ndindex(*x.shape[:2]):
        y[at] = layer(x[at], *(a[at] for a in beside))
    return y
