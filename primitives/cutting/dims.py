"""Dims: sizes that must stay equal wherever they occur, found by joining axes that meet.

An axis of a state or weight is a product of dims, the outermost first: the features of 8 heads of 4
channels side by side are (heads, channels of a head). A dim is a number; `Dims` says how many units
it has, and which dims turned out to be the same one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

Axis = tuple[int, ...]
"""Dims of which an axis is the product; () for an axis of size 1."""


class Dims:
    """Dims with what is known of them so far."""

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._same: dict[int, Axis] = {}
        self._kept: list[tuple[Axis, str]] = []
        self._whole: set[int] = set()

    def new(self, size: int) -> Axis:
        """An axis of one new dim; () for size 1, of which nothing can be cut."""
        if size == 1:
            return ()
        self._sizes.append(size)
        return (len(self._sizes) - 1,)

    def branch(self, size: int) -> int:
        """A new dim for a branch axis, which is there even where it has a single unit, and which
        is never a product."""
        self._sizes.append(size)
        self._whole.add(len(self._sizes) - 1)
        return len(self._sizes) - 1

    def leaves(self, axis: Iterable[int]) -> Axis:
        """The axis with each dim in the place of those that it was joined with."""
        found: list[int] = []
        for dim in axis:
            found += self.leaves(self._same[dim]) if dim in self._same else (dim,)
        return tuple(found)

    def size(self, axis: Iterable[int]) -> int:
        return math.prod(self._sizes[dim] for dim in self.leaves(axis))

    def join(self, one: Axis, other: Axis) -> None:
        """Says that two axes are the same. Where neither is made of the other's dims, the dims of
        both are kept whole."""
        one, other = self.leaves(one), self.leaves(other)
        pairs = list(zip(one, other, strict=False))
        if len(one) == len(other) and all(self._sizes[a] == self._sizes[b] for a, b in pairs):
            for a, b in pairs:
                self._replace(self.leaves((a,)), self.leaves((b,)))
        else:
            self._replace(one, other)

    def _replace(self, one: Axis, other: Axis) -> None:
        """Puts one axis in the place of the other, which has to be a single dim."""
        if one == other:
            return
        for old, new in ((one, other), (other, one)):
            if len(old) == 1 and old[0] not in new and (len(new) == 1 or old[0] not in self._whole):
                self._same[old[0]] = new
                self._whole |= set(new) if old[0] in self._whole else set()
                return
        self.keep((*one, *other), "two ways to divide an axis meet")

    def keep(self, axis: Axis, reason: str) -> None:
        """Says that no unit of the axis can be cut, and why."""
        self._kept.append((axis, reason))

    @property
    def kept(self) -> dict[int, str]:
        """Why dims are kept whole, the first reason of each."""
        found: dict[int, str] = {}
        for axis, reason in self._kept:
            for dim in self.leaves(axis):
                found.setdefault(dim, reason)
        return found
