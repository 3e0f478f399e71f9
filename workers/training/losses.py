"""The losses of training, kept as few points however long a run is."""

from __future__ import annotations

import math
import sys

POINTS = 32
"""Points that are kept at most: some hundred bytes of a row in the database."""

DECIMALS = 4

Kept = tuple[int, tuple[tuple[int, float], ...]]
"""The least steps of a stretch; the steps of each stretch, and the sum of their losses."""

CALLS, SHORTEST = 8, 16
"""Calls that a run has at least, unless they would have fewer steps than the second number."""


def longest_call(amount: float, of_a_step: float | None) -> int:
    """Steps of a call at most, so that the losses of a run make a curve. `of_a_step` is what a step
    takes of the budget's amount; None for budgets in seconds, whose calls are short anyway."""
    if of_a_step is None:
        return sys.maxsize
    return max(SHORTEST, math.ceil(amount / of_a_step / CALLS))


class TrainingLosses:
    """Mean training losses, each over the steps since the point before. Where there are more than
    POINTS, two neighbours become one, so that points lie ever farther apart: POINTS / 2 to POINTS
    of them. Calls of the same sizes give the same points."""

    def __init__(self) -> None:
        self._sums: list[tuple[int, float]] = []  # steps of a stretch, sum of their losses
        self._stride = 0  # steps that a stretch has at least

    def add(self, steps: int, loss: float) -> None:
        """The mean loss of the next steps."""
        if self._sums and self._sums[-1][0] < self._stride:
            before, total = self._sums.pop()
            self._sums.append((before + steps, total + steps * loss))
        else:
            self._sums.append((steps, steps * loss))
        if len(self._sums) > POINTS:
            self._halve()

    def kept(self) -> Kept:
        """What a later `restore` goes on from."""
        return self._stride, tuple(self._sums)

    def restore(self, kept: Kept) -> None:
        self._stride, sums = kept
        self._sums = list(sums)

    @property
    def points(self) -> tuple[tuple[int, float], ...]:
        """Steps since the beginning, and the mean loss of those since the point before."""
        found, at = [], 0
        for steps, total in self._sums:
            at += steps
            found.append((at, round(total / steps, DECIMALS)))
        return tuple(found)

    def _halve(self) -> None:
        pairs = zip(self._sums[::2], [*self._sums[1::2], (0, 0.0)], strict=False)
        self._sums = [(a + b, x + y) for (a, x), (b, y) in pairs]
        self._stride = max(steps for steps, _ in self._sums)
