"""How far a model's probabilities can be taken at their word.

The expected calibration error (Guo et al. 2017, equation 3) sorts positions by the probability of
the most probable token into bins of one width, and takes the mean distance between that probability
and how often the token came. The Brier score (Brier 1950) is the squared distance between all
probabilities and what came: sum_k (p_k - y_k)^2, from 0 to 2. Both are of the
model's own probabilities, without an objective's memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

BINS = 15

SHAPES: tuple[tuple[int, ...], ...] = ((BINS,), (BINS,), (BINS,), ())
"""Of the parts of `Sums`."""


class Sums(NamedTuple):
    """Over positions, by bin: their `weights`, the probability of the most probable token, and
    whether it came, by weight; over all bins, the Brier scores by weight."""

    weights: Any
    confidence: Any
    right: Any
    brier: Any


def sums(logits: Any, targets: Any, counts: Any) -> list[Any]:
    """Of one batch: logits [batch, T, rows], targets and counts [batch, T]; `counts` is None where
    all positions count the same."""
    chances = ops.softmax(logits, axis=-1)
    best = ops.max(chances, axis=-1)
    right = ops.cast(ops.equal(ops.argmax(chances, axis=-1), targets), "float32")
    came = ops.take_along_axis(chances, ops.expand_dims(targets, -1), axis=-1)[..., 0]
    brier = ops.sum(ops.square(chances), axis=-1) - 2 * came + 1
    weights = ops.ones_like(best) if counts is None else ops.cast(counts, "float32")
    place = ops.clip(ops.cast(best * BINS, "int32"), 0, BINS - 1)
    bins = ops.one_hot(place, BINS) * ops.expand_dims(weights, -1)
    confidence, hits = (
        ops.sum(bins * ops.expand_dims(each, -1), axis=(0, 1)) for each in (best, right)
    )
    return list(Sums(ops.sum(bins, axis=(0, 1)), confidence, hits, ops.sum(brier * weights)))


def figures(parts: Sequence[Any]) -> dict[str, float]:
    """`ece`, a share, and `brier`, from the sums over a slice; nothing where no position counts."""
    weights, confidence, right, brier = (np.asarray(part, np.float64) for part in Sums(*parts))
    total = float(weights.sum())
    if total <= 0:
        return {}
    return {
        "ece": float(np.abs(confidence - right).sum()) / total,
        "brier": float(brier) / total,
    }
