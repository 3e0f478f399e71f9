"""Halving hurdles: half of the candidates end in each band of the budget (So et al. 2021).

Bands are base * 2^k long, so each costs the same in expectation. A hurdle's bar is the rolling
median of the *unique* losses seen there: duplicates of a good program do not raise it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

from workers.spec.outcome import Hurdle

MINIMUM = 5
"""Unique losses that a hurdle must have seen before it stops anybody."""


class RollingMedian:
    """The median of the last `window` unique values, kept sorted as they come and go."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._by_age: dict[float, None] = {}
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, value: float) -> None:
        """A value seen again counts once, as the newest."""
        if value in self._by_age:
            del self._by_age[value]
        else:
            insort(self._sorted, value)
        self._by_age[value] = None
        if len(self._sorted) > self._window:
            oldest = next(iter(self._by_age))
            del self._by_age[oldest]
            del self._sorted[bisect_left(self._sorted, oldest)]

    def median(self) -> float:
        middle, odd = divmod(len(self._sorted), 2)
        if odd:
            return self._sorted[middle]
        return (self._sorted[middle - 1] + self._sorted[middle]) / 2


class Hurdles:
    """The bars at `points` of the budget, each over the last `window` unique losses seen there."""

    def __init__(self, points: Sequence[float], window: int) -> None:
        self._points = tuple(points)
        self._seen = tuple(RollingMedian(max(window, MINIMUM)) for _ in points)

    def record(self, losses: Sequence[float | None]) -> None:
        """One run's losses, hurdle by hurdle; it may have ended before the last."""
        for seen, loss in zip(self._seen, losses, strict=False):
            if loss is not None:
                seen.add(loss)

    def bars(self) -> tuple[Hurdle, ...]:
        """The hurdles as the next candidate meets them, in validation loss."""
        return tuple(
            Hurdle(point, seen.median() if len(seen) >= MINIMUM else None)
            for point, seen in zip(self._points, self._seen, strict=True)
        )


def spent(points: Sequence[float], full: float, hurdles_passed: int) -> float:
    """What a completed run took of the budget: up to the hurdle that stopped it, or all of it."""
    return points[hurdles_passed] if hurdles_passed < len(points) else full
