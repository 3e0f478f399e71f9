"""The pace of a training run, and whether the run may go on at it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from workers.spec.outcome import Budget, Status

if TYPE_CHECKING:  # it imports Keras, which chooses its backend then
    from workers.engines.engine import Windows

WARM = 4
"""Steps before the pace is measured: the first ones of a program are slower than all others."""

PROBE = 16
"""Steps after which the pace is judged for the first time."""

LONG_S = 0.2
"""Seconds that make up for few steps: shorter calls of fewer than PROBE - WARM steps are judged
together. What a call takes besides its steps, 3 ms on a GPU, is as long as a step there."""

RESERVE = 0.05
"""The share of a time limit that is kept for the last call and the last score."""

CALL = 0.02
"""The share of a time limit that one call may take, by the pace so far."""


class Tempo:
    """Watches the calls of one run. `began` is when its job began, in seconds of
    time.perf_counter. `most` bounds the steps of a call.

    The pace is that of the fastest call so far, or of the fastest short calls together. Whatever
    else the machine does makes calls slower and none faster, so one quiet moment is enough.
    """

    def __init__(self, budget: Budget, began: float, most: int = sys.maxsize) -> None:
        self._budget, self._began, self._most = budget, began, most
        self._steps = 0
        self._short_steps, self._short_s = 0, 0.0  # of calls that are judged together
        self.pace: float | None = None
        """Seconds a step; None until it was measured."""

    def calls(self, windows: Windows) -> Iterator[Windows]:
        """The windows of the next steps, cut into calls so that the pace is measured early, and
        again before a time limit is near. A run without limits is cut by `most` alone."""
        limited = self._budget.step_limit is not None or self._budget.time_limit_s is not None
        while len(windows):
            longest = min(self._longest() if limited else len(windows), self._most)
            yield windows[:longest]
            windows = windows[longest:]

    def _longest(self) -> int:
        """Steps that the next call may have."""
        if self._steps < PROBE:
            return (WARM if self._steps < WARM else PROBE) - self._steps
        if self._budget.time_limit_s is None or not self.pace:
            return sys.maxsize
        return max(1, int(CALL * self._budget.time_limit_s / self.pace))

    def took(self, steps: int, seconds: float) -> None:
        """A call has made so many steps in so many seconds."""
        if self._steps >= WARM:
            self._judge(steps, seconds)
        self._steps += steps

    def _judge(self, steps: int, seconds: float) -> None:
        if steps < PROBE - WARM:
            self._short_steps, self._short_s = self._short_steps + steps, self._short_s + seconds
            if self._short_s < LONG_S:
                return
            steps, seconds = self._short_steps, self._short_s
            self._short_steps, self._short_s = 0, 0.0
        pace = seconds / steps
        self.pace = pace if self.pace is None else min(self.pace, pace)

    def objection(self, seconds_left: float) -> tuple[Status, str] | None:
        """Why the run must end here, as the status and the reason of its outcome; None where it may
        go on. `seconds_left` is how long the rest of its training takes at this pace."""
        if self.pace is None:
            return None
        limit, time_limit = self._budget.step_limit, self._budget.time_limit_s
        if limit is not None and self.pace > limit.factor * limit.seed_s:
            times = self.pace / limit.seed_s
            return "too_slow", (
                f"its step takes {times:.1f} times the seed program's, more than the "
                f"{limit.factor:g} that limits.step_time_max allows"
            )
        if time_limit is not None and seconds_left > 0:
            needed = time.perf_counter() - self._began + seconds_left
            if needed > (1 - RESERVE) * time_limit:
                return "timed_out", (
                    f"stopped at step {self._steps}: all of it would take {needed:.0f} s, and its "
                    f"time limit is {time_limit:g} s"
                )
        return None
