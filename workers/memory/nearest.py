"""Nearest neighbours among many vectors: exact, in NumPy, or by FAISS where there are too many."""

from __future__ import annotations

import importlib.util
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

EXACT = 1 << 18
"""Up to so many entries the search is exact; beyond, FAISS looks into the likeliest cells, where it
is installed."""

CELLS, PROBED = 1024, 16
"""Cells that FAISS sorts entries into, and how many of them it looks into for a query."""


class Index(Protocol):
    """Vectors to be found by their likeness to others."""

    @property
    def search(self) -> str:
        """How it looks: `exact` or `faiss`."""

    @property
    def together(self) -> int:
        """How many queries are best asked at once."""

    def nearest(self, queries: Array, count: int) -> tuple[Array, Array]:
        """The scores [n, count] of the entries most like each of queries [n, d], in no order, and
        their places, -1 where there are fewer. A score is the product of the two vectors, or minus
        their squared distance."""


def index_of(keys: Array, by_distance: bool) -> Index:
    """An index over keys [M, d]."""
    if len(keys) > EXACT and importlib.util.find_spec("faiss") is not None:
        return FaissIndex(keys, by_distance)
    return ExactIndex(keys, by_distance)


class ExactIndex:
    """Compares with every entry."""

    search, together = "exact", 64

    def __init__(self, keys: Array, by_distance: bool) -> None:
        self._keys, self._by_distance = np.ascontiguousarray(keys, np.float32), by_distance
        self._squares = np.square(self._keys).sum(-1)

    def nearest(self, queries: Array, count: int) -> tuple[Array, Array]:
        scores = np.asarray(queries, np.float32) @ self._keys.T
        if self._by_distance:
            scores *= 2
            scores -= self._squares
            scores -= np.square(queries).sum(-1, keepdims=True)
        count = min(count, scores.shape[1])
        places = np.argpartition(scores, -count, axis=-1)[:, -count:]
        return np.take_along_axis(scores, places, -1), places


class FaissIndex:
    """Looks into the PROBED likeliest of CELLS cells (an inverted file), exactly inside."""

    search, together = "faiss", 512

    def __init__(self, keys: Array, by_distance: bool) -> None:
        import faiss

        keys = np.ascontiguousarray(keys, np.float32)
        width, metric = (
            keys.shape[1],
            faiss.METRIC_L2 if by_distance else faiss.METRIC_INNER_PRODUCT,
        )
        cells = min(CELLS, max(1, len(keys) // 39))
        self._flat = faiss.IndexFlatL2(width) if by_distance else faiss.IndexFlatIP(width)
        self._index = faiss.IndexIVFFlat(self._flat, width, cells, metric)
        rows = np.random.default_rng(0).permutation(len(keys))[: 64 * cells]
        self._index.train(keys[rows])
        self._index.add(keys)
        self._index.nprobe, self._by_distance = PROBED, by_distance

    def nearest(self, queries: Array, count: int) -> tuple[Array, Array]:
        scores, places = self._index.search(np.ascontiguousarray(queries, np.float32), count)
        return (-scores if self._by_distance else scores), places
