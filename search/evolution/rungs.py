"""Candidates that are paused at hurdles, and which of them goes on next.

Asynchronous successive halving (ASHA, Li et al. 2020) with promotion: a candidate that reaches a
hurdle waits there, and when a worker is free the best one that waits goes on from where it stood.
Two things differ from that paper.

- There a candidate goes on if it is among the top 1/eta of all that have come to the hurdle. Where
  candidates get better with time the top is always made of new ones, and far more than 1/eta go on.
  Here each eta-th arrival gives one place, and whoever takes it is counted: no more than one in eta
  goes on from any hurdle. (While fewer have gone on, the best that waits is in the top 1/eta.)
- Places that are given away at once go to the first comers, and are missing when a better one
  comes. So the last RESERVE arrivals at a hurdle give no place until the search has its last child.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection

RESERVE = 16
"""Tuned by `tests.benchmarks.hurdles`: with fewer the winner is left behind more often, and with
more the search sees longer runs later."""


def places(reached: int, eta: int, open: bool, reserve: int = RESERVE) -> int:
    """How many may go on from a hurdle that so many have reached. `open` says whether children are
    still to come."""
    return max(reached - reserve if open else reached, 0) // eta


class Rungs:
    """The hurdles of a campaign, numbered from 0, and who is paused at each. Losses are validation
    losses at the hurdle; of equal ones the lower id is the better."""

    def __init__(self, hurdles: int, eta: int, reserve: int = RESERVE) -> None:
        self._eta, self._reserve = eta, reserve
        self._waiting: list[list[tuple[float, int]]] = [[] for _ in range(hurdles)]
        self._went_on = [0] * hurdles
        self._at: dict[int, tuple[int, float]] = {}

    def __contains__(self, id: int) -> bool:
        return id in self._at

    def __len__(self) -> int:
        """How many wait."""
        return len(self._at)

    def arrive(self, id: int, hurdle: int, loss: float) -> None:
        """The candidate has reached the hurdle, and is paused there."""
        insort(self._waiting[hurdle], (loss, id))
        self._at[id] = hurdle, loss

    def leave(self, id: int) -> None:
        """The candidate has gone on; a KeyError where it does not wait."""
        hurdle, loss = self._at.pop(id)
        waiting = self._waiting[hurdle]
        del waiting[bisect_left(waiting, (loss, id))]
        self._went_on[hurdle] += 1

    def hurdle(self, id: int) -> int:
        """Where the candidate waits; a KeyError where it does not."""
        return self._at[id][0]

    def next(self, open: bool, going: Collection[int] = ()) -> int | None:
        """The candidate that is to go on: the best at the highest hurdle that has a place to give;
        None where none has. `open` says whether children are still to come; `going` are those that
        have gone on and have not left yet."""
        under_way = [self._at[id][0] for id in going if id in self._at]
        for hurdle in reversed(range(len(self._waiting))):
            waiting, went_on = self._waiting[hurdle], self._went_on[hurdle]
            given = places(len(waiting) + went_on, self._eta, open, self._reserve)
            if went_on + under_way.count(hurdle) < given:
                return next(id for _, id in waiting if id not in going)
        return None
