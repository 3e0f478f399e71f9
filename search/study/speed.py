"""How fast a program comes to another one's final loss.

Primer's speed-up factor (So et al. 2021, section 4): the baseline's compute over the compute that a
program needs to reach the baseline's final loss. Compute is counted twice: in FLOPs, which no
machine changes, and in seconds of training, which is what a user pays.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from search.report.verdict import Interval, mean_interval
from search.study.study import Runs
from workers.spec.outcome import Measurement, Outcome


@dataclass(frozen=True, slots=True)
class Reach:
    """Where a run came to a loss: tokens trained on, and seconds of training."""

    tokens: float
    seconds: float


@dataclass(frozen=True, slots=True)
class SpeedUp:
    """A program's factors over the pairs of runs in which it reached the baseline's final loss, and
    the seconds that it took (means with intervals). None unless it did in all `pairs`: a mean of
    those that did would flatter."""

    flops: Interval | None
    seconds: Interval | None
    seconds_to_reach: float | None
    reached: int
    pairs: int


def reach(outcome: Outcome, loss: float) -> Reach | None:
    """The first point of a run's curve at or under a validation loss, straight lines between the
    points; the first point itself where the loss was reached before it. None where it never was."""
    before: Measurement | None = None
    for point in outcome.curve:
        if point.val_loss <= loss:
            if before is None:
                return Reach(point.tokens, point.train_seconds)
            share = (before.val_loss - loss) / (before.val_loss - point.val_loss)
            return Reach(
                before.tokens + share * (point.tokens - before.tokens),
                before.train_seconds + share * (point.train_seconds - before.train_seconds),
            )
        before = point
    return None


def speed_up(runs: Runs, baseline: Runs) -> SpeedUp:
    """A program against a baseline, seed by seed; pairs where either has no score are left out."""
    flops: list[float] = []
    seconds: list[float] = []
    took: list[float] = []
    pairs = 0
    for seed, base in baseline.items():
        own = runs.get(seed)
        level = base.val_loss if base.status == "completed" else None
        if own is None or own.status != "completed" or level is None or not isfinite(level):
            continue
        pairs += 1
        if (found := reach(own, level)) is not None:
            flops.append(_ratio(_flops(base, base.tokens), _flops(own, found.tokens)))
            seconds.append(_ratio(base.train_seconds, found.seconds))
            took.append(found.seconds)
    if not pairs or len(took) < pairs:
        return SpeedUp(None, None, None, len(took), pairs)
    return SpeedUp(
        mean_interval(flops), mean_interval(seconds), sum(took) / pairs, len(took), pairs
    )  # fmt: skip


def _flops(outcome: Outcome, tokens: float) -> float:
    """Forward FLOPs; the backward pass is the same multiple of them in every program."""
    return (outcome.flops_per_token or 0) * tokens


def _ratio(whole: float, part: float) -> float:
    return whole / part if part > 0 else float("inf")
