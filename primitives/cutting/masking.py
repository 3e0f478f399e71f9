"""Masks as factors of weights: a block whose weights are scaled is the masked block.

Nothing else of a block changes, so that whatever runs it whole runs it masked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from primitives.cutting.units import Cuttable

Reshape = Callable[[Any, Any], Any]


def masked(
    found: Cuttable, weights: Sequence[Any], masks: Sequence[Any], reshape: Reshape = np.reshape
) -> list[Any]:
    """The weights, each scaled by the masks z [count] of the groups that act on it. Arrays are
    NumPy's, or a backend's with its own `reshape`."""
    numbers = {position: number for number, position in enumerate(sorted(found.layout.weights))}
    made = list(weights)
    for group, mask in zip(found.groups, masks, strict=True):
        for place in group.places:
            number, axes = numbers[place.node], found.layout.weights[place.node]
            if place.axis < 0:
                made[number] = made[number] * mask[0]
            else:
                sizes = [found.layout.sizes[dim] for dim in chain(*axes)]
                made[number] = _scaled(made[number], mask, place.axis, sizes, reshape)
    return made


def _scaled(weight: Any, mask: Any, axis: int, sizes: Sequence[int], reshape: Reshape) -> Any:
    """A weight times a mask along one of the dims of its axes, which have these sizes."""
    shape = tuple(weight.shape)
    along = [size if place == axis else 1 for place, size in enumerate(sizes)]
    return reshape(reshape(weight, sizes) * reshape(mask, along), shape)
