"""What memories say of the next token, as two logarithms for each position: of the sum of
exp(similarity / temperature) over all its memories, and over those that are followed by the token
that really comes next. exp of the difference is the probability that memories alone give it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.memory.contexts import Contexts
from workers.memory.nearest import Index

Array = npt.NDArray[Any]

NOTHING = -np.inf
"""The logarithm of no mass."""


@dataclass(frozen=True, slots=True)
class Masses:
    """`every` and `fits` [N], the logarithms of the two sums; -inf where there is no memory."""

    every: Array
    fits: Array


def earlier(
    found: Contexts, keys: Array, reach: int | None, temperatures: Sequence[float]
) -> list[Masses]:
    """By earlier positions of the text itself, for each temperature: those of the same segment, and
    of the same document up to `reach` that come before the segment, unless that is None. Similarity
    is the product of `keys` [N, d] over the root of d."""
    size, length = len(keys), found.length
    every = np.full((len(temperatures), size), NOTHING)
    fits = every.copy()
    scaled = keys * np.float32(keys.shape[1] ** -0.5)
    starts = np.searchsorted(found.documents, found.documents)  # where each document begins
    for first in range(0, size, length):
        last = first + length
        low = first if reach is None else max(starts[first], first - reach)
        similar = scaled[first:last] @ keys[low:last].T
        same = found.labels[low:last] == found.labels[first:last, None]
        own = similar[:, first - low :]  # all that is older is remembered
        own[np.triu_indices(length)] = NOTHING
        if reach is not None and found.documents[first] != found.documents[last - 1]:
            others = found.documents[low:last] != found.documents[first:last, None]
            similar[others] = NOTHING
        for number, temperature in enumerate(temperatures):
            every[number, first:last], fits[number, first:last] = _sums(similar, same, temperature)
    return [Masses(*each) for each in zip(every, fits, strict=True)]


def datastore(
    found: Contexts, index: Index, labels: Array, count: int, temperatures: Sequence[float]
) -> list[Masses]:
    """By the `count` nearest entries of an index, whose labels these are, for each temperature."""
    block = index.together
    made: list[list[tuple[Array, Array]]] = [[] for _ in temperatures]
    for first in range(0, len(found.g), block):
        scores, places = index.nearest(found.g[first : first + block], count)
        scores = np.where(places < 0, NOTHING, scores) * np.float32(found.g.shape[1] ** -0.5)
        same = labels[places] == found.labels[first : first + block, None]
        for number, temperature in enumerate(temperatures):
            made[number].append(_sums(scores, same, temperature))
    return [Masses(*(np.concatenate(parts) for parts in zip(*each, strict=True))) for each in made]


def _sums(similar: Array, same: Array, temperature: float) -> tuple[Array, Array]:
    """The logarithms of the sums of exp(similar / temperature) over the last axis, of all and of
    those that are `same`."""
    highest = similar.max(axis=-1, keepdims=True, initial=NOTHING)
    safe = np.where(np.isfinite(highest), highest, 0.0).astype(similar.dtype)
    powers = np.subtract(similar, safe)
    powers *= 1 / temperature
    np.exp(powers, out=powers)
    shift = safe[:, 0].astype(np.float64) / temperature
    with np.errstate(divide="ignore"):
        every = np.log(powers.sum(-1, dtype=np.float64)) + shift
        powers *= same
        fits = np.log(powers.sum(-1, dtype=np.float64)) + shift
    return every, fits


def joint(found: Contexts, masses: Masses) -> Array:
    """log P [N] of the next tokens where vocabulary and memories share one softmax (TRIME)."""
    vocabulary = (found.losses + found.right).astype(np.float64)
    right = found.right.astype(np.float64)
    made: Array = np.logaddexp(right, masses.fits) - np.logaddexp(vocabulary, masses.every)
    return made


def mixed(log_chances: Array, masses: Masses, weight: float) -> Array:
    """log((1 - weight) P + weight P_memory) [N]; P where a position has no memory."""
    alone = ~np.isfinite(masses.every)
    with np.errstate(invalid="ignore", divide="ignore"):
        by_memory = masses.fits - masses.every
        made = np.logaddexp(log_chances + np.log1p(-weight), by_memory + np.log(weight))
    chosen: Array = np.where(alone, log_chances, made)
    return chosen
