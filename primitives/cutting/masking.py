"""The weights of a masked block: those of the whole one, scaled by masks, and marks that say which
units are there (see `marking`). Whatever runs a block runs it masked.

Arrays are NumPy's, or a backend's; `xp` is NumPy or keras.ops.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from primitives.cutting.units import Cuttable


def masked(found: Cuttable, weights: Sequence[Any], masks: Sequence[Any], xp: Any) -> list[Any]:
    """The weights of the masked block's graph, from those of the whole one and the masks z [count]
    of each group."""
    made = scaled(found, weights, masks, xp)
    return [
        made[source] if isinstance(source, int) else source.value(masks, xp)
        for source in found.marked.sources
    ]


def scaled(found: Cuttable, weights: Sequence[Any], masks: Sequence[Any], xp: Any) -> list[Any]:
    """The whole block's weights, each times the masks of the groups that act on it."""
    numbers = {position: number for number, position in enumerate(sorted(found.layout.weights))}
    made = list(weights)
    for group, mask in zip(found.groups, masks, strict=True):
        for place in group.places:
            number, axes = numbers[place.node], found.layout.weights[place.node]
            if place.axis < 0:
                made[number] = made[number] * mask[0]
            else:
                sizes = [found.layout.sizes[dim] for dim in chain(*axes)]
                made[number] = _scaled(made[number], mask, place.axis, sizes, xp)
    return made


def _scaled(weight: Any, mask: Any, axis: int, sizes: Sequence[int], xp: Any) -> Any:
    """A weight times a mask along one of the dims of its axes, which have these sizes."""
    shape = tuple(weight.shape)
    along = [size if place == axis else 1 for place, size in enumerate(sizes)]
    return xp.reshape(xp.reshape(weight, sizes) * xp.reshape(mask, along), shape)
