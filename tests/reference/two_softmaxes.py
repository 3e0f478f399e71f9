"""TRIME's loss in the form of its released code, in NumPy and double precision: a softmax over the
vocabulary and one over the memories, mixed by the mass that each has."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def losses(logits: Array, g: Array, targets: Array, allowed: Array) -> Array:
    """logits [N, V], g [N, d], targets [N], allowed [N, N] (row: position, column: memory) of all
    positions of a batch -> -log P [N]."""
    found = []
    for position, row in enumerate(np.asarray(logits, np.float64)):
        mass = np.exp(row - row.max())
        chance = mass[targets[position]] / mass.sum()
        places = np.flatnonzero(allowed[position])
        if len(places):
            similar = np.asarray(g, np.float64)[places] @ np.asarray(g, np.float64)[position]
            similar /= np.sqrt(g.shape[-1])
            of_memories = np.exp(similar - similar.max())
            chance_there = of_memories[targets[places] == targets[position]].sum()
            chance_there /= of_memories.sum()
            vocabulary = np.log(mass.sum()) + row.max()
            memories = np.log(of_memories.sum()) + similar.max()
            chance = chance / (1 + np.exp(memories - vocabulary)) + chance_there / (
                1 + np.exp(vocabulary - memories)
            )
        found.append(-np.log(chance))
    return np.array(found)


def local(batch: int, length: int) -> Array:
    """Earlier positions of the same sequence, one position after the other."""
    every = [(s, t) for s in range(batch) for t in range(length)]
    return np.array([[a[0] == b[0] and b[1] < a[1] for b in every] for a in every])


def long(tokens: Array, group: int) -> Array:
    """Earlier positions of the group whose next token belongs to the same document: no separator
    (token 0) stands between the two."""
    batch, length = tokens.shape
    flat, size = tokens.reshape(-1), batch * length
    allowed = np.zeros((size, size), bool)
    for here in range(size):
        for there in range(here):
            together = here // (group * length) == there // (group * length)
            allowed[here, there] = together and not (flat[there + 1 : here + 1] == 0).any()
    return allowed


def external(batch: int, length: int, group: int, local_too: Array) -> Array:
    """All positions of the group's other sequences, and those before of sequences that may."""
    every = [(s, t) for s in range(batch) for t in range(length)]
    return np.array([
        [
            a[0] // group == b[0] // group
            and (a[0] != b[0] or (bool(local_too[a[0]]) and b[1] < a[1]))
            for b in every
        ]
        for a in every
    ])  # fmt: skip
