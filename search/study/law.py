"""Power laws: how a loss falls with what is spent.

    loss = scale * x^-exponent              or, where the runs show one,
    loss = floor + scale * x^-exponent      (Kaplan et al. 2020; Hoffmann et al. 2022)

Cells that differ in something else than x stand in groups, which share the exponent and have a
scale each. Squares of log residuals are least. The floor is kept where Akaike's criterion for small
samples is lower with it than without. Intervals are a bootstrap's: residuals, made as large as
those of points that were not fitted, are drawn again, and the fit's t statistic is looked up among
theirs (Efron and Tibshirani 1993, chapter 12), so that few cells give wide intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from search.report.verdict import LEVEL, Interval

DRAWS = 999
"""Resamples of a law without a floor. One with a floor is fitted by iteration, and gets a third."""

SPAN = 1.5
"""The largest x of a group over its smallest one from which a power of x is fitted."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sample:
    """A cell: what was spent, the loss, and which other cells it may be compared with."""

    x: float
    loss: float
    group: str = ""


@dataclass(frozen=True, slots=True)
class Law:
    """A fitted law. `exponent` is positive where more of x lowers the loss; its ends are infinite
    where there are no more cells than parameters. `scales` are by group. `r_squared` is the share
    of the variance of log loss within groups that it explains."""

    exponent: Interval
    floor: Interval | None
    scales: Mapping[str, float]
    cells: int
    r_squared: float

    def loss(self, x: float, group: str = "") -> float:
        base = self.floor.centre if self.floor else 0.0
        return base + float(self.scales[group] * x**-self.exponent.centre)


def fit(samples: Sequence[Sample], seed: int = 0) -> Law | None:
    """The law of these cells; None where no group's x spans SPAN."""
    usable = _informative(samples)
    if not usable:
        return None
    design = _design(usable)
    y = np.log([each.loss for each in usable])
    plain = _linear(design, y)
    rng = np.random.default_rng(seed)
    best = plain
    if design.shape[1] == 2:  # one group
        curved = _with_floor(design, y)
        if curved.floor > 0 and _criterion(curved) < _criterion(plain):
            best = curved
    ends = _intervals(best, design, rng)
    groups = list(dict.fromkeys(each.group for each in usable))
    spread = _within(y, design)
    return Law(
        ends[0],
        ends[1] if best.floor > 0 else None,
        dict(zip(groups, map(float, np.exp(best.values[1 : 1 + len(groups)])), strict=True)),
        len(usable),
        1 - float(best.residuals @ best.residuals) / spread if spread > 0 else 1.0,
    )


def _informative(samples: Sequence[Sample]) -> list[Sample]:
    """The cells of groups whose x spans SPAN. Others would add a parameter each and say nothing, or
    take for a trend in x what differs beside it."""
    reach: dict[str, list[float]] = {}
    for each in samples:
        reach.setdefault(each.group, []).append(each.x)
    wide = {group for group, xs in reach.items() if max(xs) >= SPAN * min(xs)}
    return [each for each in samples if each.group in wide]


def _design(samples: Sequence[Sample]) -> Array:
    """A row for each cell: minus log x, and an indicator of its group."""
    groups = list(dict.fromkeys(each.group for each in samples))
    logs = [[-math.log(each.x)] for each in samples]
    flags = [[float(each.group == group) for group in groups] for each in samples]
    return np.hstack([np.array(logs), np.array(flags)])


@dataclass(frozen=True, slots=True)
class _Fit:
    """`values` are the exponent, log scales and, in the last place, the floor where the form has
    one; `errors` are their standard errors."""

    values: Array
    fitted: Array
    residuals: Array
    errors: Array
    floor: float = 0.0

    @property
    def count(self) -> int:
        return len(self.values)


def _linear(design: Array, y: Array) -> _Fit:
    values: Any = np.linalg.lstsq(design, y, rcond=None)[0]
    fitted = design @ values
    return _Fit(values, fitted, y - fitted, _errors(design, y - fitted))


def _with_floor(design: Array, y: Array, starts: Sequence[Array] = ()) -> _Fit:
    """By iteration from each of the starts, of which the best end is kept; without any, from laws
    with a low, a middle and a high floor."""
    from scipy.optimize import least_squares

    lowest = float(np.exp(y.min()))

    def residuals(values: Array) -> Array:
        return _curve(design, values) - y

    found: Any = None
    for start in starts or _starts(design, y, lowest):
        start[-1] = min(start[-1], 0.999 * lowest)
        bounds = [-np.inf] * design.shape[1] + [0.0], [np.inf] * design.shape[1] + [lowest]
        made = least_squares(
            residuals, start, bounds=bounds, x_scale=np.maximum(np.abs(start), 0.1)
        )
        if found is None or made.cost < found.cost:
            found = made
    return _Fit(
        found.x, found.fun + y, -found.fun, _errors(found.jac, found.fun), float(found.x[-1])
    )


def _starts(design: Array, y: Array, lowest: float) -> list[Array]:
    floors = [share * lowest for share in (0.1, 0.5, 0.9)]
    shifted = [np.log(np.exp(y) - floor) for floor in floors]
    return [
        np.append(np.linalg.lstsq(design, each, rcond=None)[0], floor)
        for each, floor in zip(shifted, floors, strict=True)
    ]


def _curve(design: Array, values: Array) -> Array:
    made: Array = np.log(values[-1] + np.exp(np.clip(design @ values[:-1], -700, 700)))
    return made


def _errors(jacobian: Array, residuals: Array) -> Array:
    """Standard errors of the parameters; infinite without more cells than parameters."""
    free = len(residuals) - jacobian.shape[1]
    if free < 1:
        return np.full(jacobian.shape[1], np.inf)
    inverse = np.linalg.pinv(jacobian.T @ jacobian)
    variances: Array = np.diag(inverse) * float(residuals @ residuals) / free
    return np.sqrt(np.maximum(variances, 0.0))


def _criterion(fit: _Fit) -> float:
    """Akaike's, corrected for few cells (Hurvich and Tsai 1989); infinite for too few."""
    n, k = len(fit.residuals), fit.count + 1
    if n <= k + 1:
        return math.inf
    squares = max(float(fit.residuals @ fit.residuals), 1e-300)
    return n * math.log(squares / n) + 2 * k + 2 * k * (k + 1) / (n - k - 1)


def _intervals(
    best: _Fit, design: Array, rng: np.random.Generator
) -> tuple[Interval, Interval | None]:
    """Of the exponent, and of the floor where there is one."""
    free = len(best.residuals) - best.count
    centre = float(best.values[0])
    if free < 1:
        return Interval(centre, -math.inf, math.inf), None
    centred = (best.residuals - best.residuals.mean()) * math.sqrt(len(design) / free)
    if best.floor == 0:
        resampled = rng.choice(centred, (len(centred), DRAWS))
        return _studentised(best, 0, _linear_statistics(design, resampled, free)), None
    statistics = []
    for _ in range(DRAWS // 3):
        y = best.fitted + rng.choice(centred, len(centred))
        again = _with_floor(design, y, [best.values.copy()])
        errors = np.where(again.errors > 0, again.errors, np.nan)
        statistics.append((again.values - best.values) / errors)
    table = np.array(statistics)
    floor = _studentised(best, -1, table[:, -1])
    floor = Interval(floor.centre, max(0.0, floor.low), floor.high)
    return _studentised(best, 0, table[:, 0]), floor


def _linear_statistics(design: Array, resampled: Array, free: int) -> Array:
    """The exponent's t statistic for each column of residuals: a linear fit moves by what it makes
    of the residuals alone."""
    inverse = np.linalg.pinv(design)
    moved = inverse @ resampled
    left = resampled - design @ moved
    variance = float((inverse @ inverse.T)[0, 0])
    errors = np.sqrt(variance * np.sum(left**2, axis=0) / free)
    made: Array = moved[0] / np.where(errors > 0, errors, np.nan)
    return made


def _studentised(best: _Fit, place: int, statistics: Array) -> Interval:
    centre, error = float(best.values[place]), float(best.errors[place])
    statistics = statistics[np.isfinite(statistics)]
    if error == 0 or not len(statistics):  # the cells lie on the law
        return Interval(centre, centre, centre)
    low, high = np.quantile(statistics, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(centre, centre - float(high) * error, centre - float(low) * error)


def _within(y: Array, design: Array) -> float:
    """The sum of squares of y around its groups' means."""
    flags = design[:, 1:]
    means = flags @ ((flags.T @ y) / flags.sum(axis=0))
    return float((y - means) @ (y - means))
