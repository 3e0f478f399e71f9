"""How long a campaign still takes, judged by what this run of it has seen."""

from __future__ import annotations

from search.campaign.history import State
from search.campaign.progress import finals_planned


class Pace:
    """Measures candidates as they end. Times come from the caller's clock, in seconds."""

    def __init__(self, state: State, now: float) -> None:
        self._since, self._ended_before = now, len(state.results)
        self._full_s: float | None = None

    def completed_in_full(self, seconds: float) -> None:
        """A run took the whole budget, which is what a final run takes."""
        old = self._full_s
        self._full_s = seconds if old is None else 0.8 * old + 0.2 * seconds

    def eta_s(self, state: State, capacity: int, now: float, until: float) -> float | None:
        """Seconds to the end of the campaign; None until there is something to judge by. `until`
        is when the search ends, however many candidates it has then."""
        to_search = state.spec.candidates - len(state.results)
        to_finish = finals_planned(state) - len(state.finals)
        searching = finishing = 0.0
        if to_search > 0:
            ended = len(state.results) - self._ended_before
            if ended == 0:
                return None
            searching = min(to_search * (now - self._since) / ended, max(until - now, 0.0))
        if to_finish > 0:
            if self._full_s is None:
                return None
            rounds = -(-to_finish // max(capacity, 1))
            finishing = rounds * self._full_s * state.spec.final.budget
        return searching + finishing
