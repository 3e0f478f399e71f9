"""Layers that retrieve by product keys: of n*n keys, key i*n + j is made of sub-keys i and j."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.reference.mixtures import Array, Ids, Weights, each_token, softmax, top_k

Retrieval = Callable[[Array, Array, int], tuple[Ids, Array]]


def product_keys(first: Array, second: Array, k: int) -> tuple[Ids, Array]:
    """Lample et al. 2019, section 3.2: ids and scores of the k best among the k * k pairs of the
    best sub-keys. `first` and `second` [n] are the scores of the sub-keys."""
    left, right = top_k(first, k), top_k(second, k)
    ids = np.array([i * len(second) + j for i in left for j in right])
    scores = np.array([first[i] + second[j] for i in left for j in right])
    best = top_k(scores, k)
    return ids[best], scores[best]


def exhaustive(first: Array, second: Array, k: int) -> tuple[Ids, Array]:
    """Lample et al. 2019, equation 1: the k best among all n * n keys."""
    scores = np.array([a + b for a in first for b in second])
    ids = top_k(scores, k)
    return ids, scores[ids]


def retrieved(v: Array, w: Weights, head: int, k: int, retrieve: Retrieval) -> tuple[Ids, Array]:
    """Lample et al. 2019, equations 1 and 2: the k keys nearest to one head's query, and their
    softmax weights. query [h, d, 2 dk]; keys1 and keys2 are [h, dk, n], or [dk, n] where heads
    share them. Each half of a query has a layer norm with its scale and shift, [2, h, dk], if there
    are any."""
    halves = np.split(v @ w["query"][head], 2)
    if "query_scale" in w:
        halves = [
            (half - half.mean()) / half.std() * w["query_scale"][i][head]
            + w["query_shift"][i][head]
            for i, half in enumerate(halves)
        ]
    keys = [w[name] if w[name].ndim == 2 else w[name][head] for name in ("keys1", "keys2")]
    ids, scores = retrieve(halves[0] @ keys[0], halves[1] @ keys[1], k)
    return ids, softmax(scores)


def gelu(x: float) -> float:
    """Hendrycks and Gimpel 2016, section 2, the approximation with tanh."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def pkm(x: Array, w: Weights, k: int, retrieve: Retrieval = product_keys) -> Array:
    """Lample et al. 2019, equation 3: y = sum over heads and keys of g V[id]; values [n*n, d]."""

    def token(v: Array) -> Array:
        y = np.zeros(w["values"].shape[1])
        for head in range(len(w["query"])):
            for i, g in zip(*retrieved(v, w, head, k, retrieve), strict=True):
                y += g * w["values"][i]
        return y

    return each_token(token, x)


def peer(x: Array, w: Weights, k: int, retrieve: Retrieval = product_keys) -> Array:
    """He 2024 (PEER), equation 4: y = sum over heads and keys of g gelu(u_i . x) v_i; u and v
    [n*n, d] are shared by the heads, and so are sub-keys."""

    def token(v: Array) -> Array:
        y = np.zeros_like(v)
        for head in range(len(w["query"])):
            for i, g in zip(*retrieved(v, w, head, k, retrieve), strict=True):
                y += g * gelu(w["u"][i] @ v) * w["v"][i]
        return y

    return each_token(token, x)
