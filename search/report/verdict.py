"""Whether a candidate is better than the seed program, from runs with fresh seeds.

The interval is Welch's for a difference of two means: the two programs may vary differently, and
with three runs each the interval is honestly wide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, variance
from typing import Literal

LEVEL = 0.95
"""How often the interval of a difference covers the true one."""

Word = Literal["better", "not better", "cannot tell"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, or a difference of two, with the ends of its interval."""

    centre: float
    low: float
    high: float

    def times(self, factor: float) -> Interval:
        """The same in another unit; the factor is positive."""
        return Interval(factor * self.centre, factor * self.low, factor * self.high)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A program against a baseline in a score where lower is better. `difference` is the program's
    mean minus the baseline's, None where either has no run; its ends are infinite where either has
    a single run. `runs` and `baseline_runs` count what went in."""

    difference: Interval | None
    runs: int
    baseline_runs: int

    @property
    def word(self) -> Word:
        """`better` or `not better` where the interval lies on one side of zero."""
        if self.difference is None:
            return "cannot tell"
        if self.difference.high < 0:
            return "better"
        return "not better" if self.difference.low >= 0 else "cannot tell"


def compare(scores: Sequence[float], baseline: Sequence[float], level: float = LEVEL) -> Comparison:
    """The scores of a program's runs against those of a baseline's."""
    if not scores or not baseline:
        return Comparison(None, len(scores), len(baseline))
    centre = fmean(scores) - fmean(baseline)
    half = _welch_half_width(scores, baseline, level)
    return Comparison(Interval(centre, centre - half, centre + half), len(scores), len(baseline))


def mean_interval(scores: Sequence[float], level: float = LEVEL) -> Interval | None:
    """The mean with its Student interval; infinite ends for a single run, None for no run."""
    if not scores:
        return None
    centre, half = fmean(scores), math.inf
    if len(scores) > 1:
        error = math.sqrt(variance(scores) / len(scores))
        half = t_quantile((1 + level) / 2, len(scores) - 1) * error
    return Interval(centre, centre - half, centre + half)


def _welch_half_width(first: Sequence[float], second: Sequence[float], level: float) -> float:
    if min(len(first), len(second)) < 2:
        return math.inf
    errors = [variance(each) / len(each) for each in (first, second)]
    total = sum(errors)
    if total == 0:
        return 0.0
    # Welch and Satterthwaite's degrees of freedom.
    freedom = total**2 / sum(
        error**2 / (len(each) - 1) for error, each in zip(errors, (first, second), strict=True)
    )
    return t_quantile((1 + level) / 2, freedom) * math.sqrt(total)


@cache
def _gauss(count: int) -> tuple[tuple[float, float], ...]:
    """Nodes and weights of Gauss and Legendre's rule on [-1, 1]: the roots of Legendre's polynomial
    of that degree, by Newton's method. Written here since verbs that only look import no numpy."""
    made = []
    for index in range(count):
        x, slope = math.cos(math.pi * (index + 0.75) / (count + 0.5)), 1.0
        for _ in range(100):
            before, value = 1.0, x
            for degree in range(2, count + 1):
                step = (2 * degree - 1) * x * value - (degree - 1) * before
                before, value = value, step / degree
            slope = count * (x * value - before) / (x * x - 1)
            x -= value / slope
            if abs(value / slope) < 1e-15:
                break
        made.append((x, 2 / ((1 - x * x) * slope * slope)))
    return tuple(made)


def t_cdf(value: float, freedom: float) -> float:
    """Student's t distribution function.

    With t = sqrt(freedom) * tan(angle) its density becomes cos(angle)^(freedom - 1) times a
    constant, which Gauss and Legendre's rule integrates to about ten digits."""
    end = math.atan(value / math.sqrt(freedom))
    values = [w * math.cos((x + 1) * end / 2) ** (freedom - 1) for x, w in _gauss(64)]
    area = math.fsum(values) * end / 2
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    return 0.5 + math.exp(scale) / math.sqrt(math.pi) * area


def t_quantile(probability: float, freedom: float) -> float:
    """The value under which Student's t falls with the probability, which is at least one half:
    t_quantile(0.975, 4) is 2.776."""
    low, high = 0.0, 1.0
    while t_cdf(high, freedom) < probability:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, freedom) < probability else (low, middle)
    return (low + high) / 2
