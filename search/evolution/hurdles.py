"""Hurdles: points of the budget where a candidate must be good enough to be trained further.

One candidate in eta is meant to go on from each hurdle. Bands between hurdles are base * eta^k
long, so that each costs the same in expectation: hurdles of Primer (So et al. 2021) with eta 2.
What a candidate must reach is its bar, and three rules set it:

- `top`: the candidate is among the best 1/eta of all that have reached the hurdle: asynchronous
  successive halving that stops candidates and promotes none later (ASHA, Li et al. 2020). The share
  follows what happens, see `TopBar`.
- `median`: its loss is at most the median of the last ones there. Earlier versions had this rule.
- `promote`: there is none. Every candidate is paused at the hurdle, and goes on later if it is one
  of the best (`search.evolution.rungs`).

Losses count once, however many candidates have the same: duplicates of a good program do not raise
a bar.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from math import exp
from typing import Literal, Protocol

from workers.spec.outcome import Hurdle

Rule = Literal["top", "median", "promote"]

MINIMUM = 5
"""Unique losses that a median must have before it stops anybody."""

STRICTNESS = 0.05
"""How much lower the quantile of the first bar is, as a logarithm, for each candidate that went on
beyond its share: fourteen of them halve it. Tuned by `tests.benchmarks.hurdles`: with a higher one
fewer steps are taken, and the winner is stopped more often."""


class Bar(Protocol):
    """What one hurdle has seen, and the loss that it asks for."""

    def add(self, loss: float, went_on: bool | None) -> None:
        """A candidate has reached the hurdle with this validation loss. `went_on` is None for a
        seed program, which no hurdle judges."""

    def threshold(self) -> float | None:
        """The highest loss with which a candidate goes on now; None while anybody does."""


class RollingMedian:
    """The median of the last `window` unique values, kept sorted as they come and go."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._by_age: dict[float, None] = {}
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, loss: float, went_on: bool | None = None) -> None:
        """A value seen again counts once, as the newest."""
        if loss in self._by_age:
            del self._by_age[loss]
        else:
            insort(self._sorted, loss)
        self._by_age[loss] = None
        if len(self._sorted) > self._window:
            oldest = next(iter(self._by_age))
            del self._by_age[oldest]
            del self._sorted[bisect_left(self._sorted, oldest)]

    def median(self) -> float:
        middle, odd = divmod(len(self._sorted), 2)
        if odd:
            return self._sorted[middle]
        return (self._sorted[middle - 1] + self._sorted[middle]) / 2

    def threshold(self) -> float | None:
        return self.median() if len(self) >= MINIMUM else None


class TopBar:
    """The best `share` of all that have reached the hurdle go on.

    Children of good parents are better than most that came before them, so more than `share` of
    them would be among the best `share` of all. So the bar is a quantile of all losses that is
    `share` while no more than `share` of the candidates have gone on, and falls by `strictness`, as
    a logarithm, with each one that went on beyond that. Nobody goes on who is not among the best
    `share` of all, and whoever is the best so far does.
    """

    def __init__(self, share: float, strictness: float = STRICTNESS) -> None:
        self._share, self._strictness = share, strictness
        self._sorted: list[float] = []
        self._excess = 0.0

    def add(self, loss: float, went_on: bool | None) -> None:
        place = bisect_left(self._sorted, loss)
        if place == len(self._sorted) or self._sorted[place] != loss:
            self._sorted.insert(place, loss)
        if went_on is not None:
            self._excess += went_on - self._share

    def threshold(self) -> float | None:
        """With it, the next candidate is at least as good as the quantile says among all, itself
        counted; as good as the best one where they are few."""
        if not self._sorted:
            return None
        quantile = self._share * exp(-self._strictness * max(self._excess, 0.0))
        count = int(quantile * (len(self._sorted) + 1) + 1e-9)
        return self._sorted[max(count, 1) - 1]


class NoBar:
    """Nobody is stopped here."""

    def add(self, loss: float, went_on: bool | None) -> None:
        pass

    def threshold(self) -> float | None:
        return None


def make_bar(rule: Rule, eta: int, window: int, place: int) -> Bar:
    """Hurdle number `place`, from 0, that has seen nobody. `window` counts the losses that a median
    looks back. One candidate in eta^place reaches the hurdle, so one too many counts eta^place
    times as much there; and its losses tell more, so being strict there loses fewer winners."""
    if rule == "median":
        return RollingMedian(max(window, MINIMUM))
    if rule == "promote":
        return NoBar()
    return TopBar(1 / eta, STRICTNESS * eta**place)


class Hurdles:
    """The hurdles of a campaign at `points` of the budget."""

    def __init__(self, points: Sequence[float], window: int, rule: Rule, eta: int) -> None:
        self._points = tuple(points)
        self._bars = tuple(make_bar(rule, eta, window, place) for place in range(len(points)))

    def record(self, losses: Sequence[float | None], passed: int, judged: bool = True) -> None:
        """One run's losses, hurdle by hurdle; it went over the first `passed`, and may have ended
        before the last. `judged` is false for a seed program."""
        for place, (bar, loss) in enumerate(zip(self._bars, losses, strict=False)):
            if loss is not None:
                bar.add(loss, place < passed if judged else None)

    def bars(self) -> tuple[Hurdle, ...]:
        """The hurdles as the next candidate meets them, in validation loss."""
        return tuple(
            Hurdle(point, bar.threshold())
            for point, bar in zip(self._points, self._bars, strict=True)
        )


def spent(points: Sequence[float], full: float, hurdles_passed: int) -> float:
    """What a completed run took of the budget: up to the hurdle that stopped it, or all of it."""
    return points[hurdles_passed] if hurdles_passed < len(points) else full
