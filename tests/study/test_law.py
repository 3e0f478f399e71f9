"""Power laws with a known answer, and against independent fits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, stats

from search.study.law import SPAN, Sample, _criterion, _Fit, fit


def sampled(
    xs: list[float], scale: float, exponent: float, noise: float = 0.0, floor: float = 0.0,
    group: str = "", seed: int = 0,
) -> list[Sample]:  # fmt: skip
    rng = np.random.default_rng(seed)
    return [
        Sample(x, floor + scale * x**-exponent * math.exp(rng.normal(0, noise)), group) for x in xs
    ]


WIDE = list(np.logspace(3, 8, 11))


def test_an_exact_law_is_found() -> None:
    law = fit(sampled([1e3, 1e4, 1e6], 7.0, 0.2))
    assert law is not None and law.floor is None
    assert law.exponent.centre == pytest.approx(0.2) and law.scales[""] == pytest.approx(7.0)
    assert law.exponent.high - law.exponent.low < 1e-9 and law.r_squared == pytest.approx(1.0)
    assert law.loss(1e5) == pytest.approx(7.0 * 1e5**-0.2)


def test_without_a_floor_it_is_a_line_of_logarithms() -> None:
    """Exponent as scipy's regression has it, and an interval near Student's."""
    samples = sampled(WIDE, 5.0, 0.1, noise=0.02)
    law = fit(samples)
    assert law is not None and law.floor is None
    line = stats.linregress(np.log([s.x for s in samples]), np.log([s.loss for s in samples]))
    assert law.exponent.centre == pytest.approx(-line.slope)
    assert law.r_squared == pytest.approx(line.rvalue**2)
    width = 2 * stats.t.ppf(0.975, len(samples) - 2) * line.stderr
    assert law.exponent.high - law.exponent.low == pytest.approx(width, rel=0.25)


def test_a_narrow_range_has_no_law() -> None:
    """1 % more parameters and a higher loss is no power of -5: other things differ there."""
    narrow = sampled([1.0e5, 1.01e5, 1.02e5], 7.0, -5.0)
    assert fit(narrow) is None
    wide = sampled([1e5, 2e5, 4e5], 7.0, 0.2, group="wide")
    assert fit([Sample(10, 3.0), Sample(10 * SPAN, 2.0)]) is not None
    law = fit([*narrow, *wide])
    assert law is not None and law.cells == 3 and set(law.scales) == {"wide"}
    assert law.exponent.centre == pytest.approx(0.2)


def test_a_floor_is_found_where_there_is_one() -> None:
    samples = sampled(WIDE, 60.0, 0.4, noise=0.02, floor=1.5)
    law = fit(samples)
    assert law is not None and law.floor is not None

    def curve(x: np.ndarray, floor: float, scale: float, exponent: float) -> np.ndarray:
        return np.log(floor + math.e**scale * np.exp(-exponent * x))

    found, _ = optimize.curve_fit(
        curve, np.log([s.x for s in samples]), np.log([s.loss for s in samples]), p0=(1, 3, 0.3)
    )
    assert law.floor.centre == pytest.approx(found[0], rel=1e-3)
    assert law.exponent.centre == pytest.approx(found[2], rel=1e-3)
    assert law.exponent.low < 0.4 < law.exponent.high and law.floor.low < 1.5 < law.floor.high
    assert law.loss(1e5) == pytest.approx(
        found[0] + math.exp(found[1]) * 1e5 ** -found[2], rel=1e-3
    )


def test_a_floor_costs_a_parameter() -> None:
    """Akaike's criterion for small samples by hand: n ln(RSS / n) + 2k + 2k(k + 1) / (n - k - 1),
    where the variance counts among the k."""
    residuals, none = np.array([0.1, -0.1, 0.2, 0.0, 0.0]), np.zeros(5)
    made = _Fit(np.zeros(2), none, residuals, np.zeros(2))
    assert _criterion(made) == pytest.approx(5 * math.log(0.06 / 5) + 2 * 3 + 2 * 3 * 4 / 1)
    more = _Fit(np.zeros(3), none, residuals, np.zeros(3))
    assert _criterion(more) == math.inf, "five cells are too few for a floor"


def test_groups_share_the_exponent_alone() -> None:
    samples = sampled([10, 100, 1000], 3.0, 0.3, group="a")
    samples += [*sampled([10, 50], 9.0, 0.3, group="b"), Sample(10, 99.0, "alone")]
    law = fit(samples)
    assert law is not None and law.cells == 5
    assert law.exponent.centre == pytest.approx(0.3)
    assert law.scales == pytest.approx({"a": 3.0, "b": 9.0})
    assert law.r_squared == pytest.approx(1) and law.loss(50, "b") == pytest.approx(9 * 50**-0.3)


def test_what_is_explained_is_counted_within_groups() -> None:
    """By hand: each group is flat but for one step of the other's slope."""
    samples = [
        Sample(x, y, g)
        for g, ys in (("a", (4, 2)), ("b", (9, 9)))
        for x, y in zip((1, 2), ys, strict=True)
    ]
    law = fit(samples)
    assert law is not None and law.exponent.centre == pytest.approx(0.5)
    assert law.r_squared == pytest.approx(0.5)


def test_what_cannot_be_told_is_not() -> None:
    assert fit([]) is None
    assert fit([Sample(10, 3.0), Sample(10, 2.0)]) is None
    two = fit([Sample(10, 3.0), Sample(20, 2.0)])
    assert two is not None and two.exponent.high == math.inf
    flat = fit([Sample(x, 2.0) for x in (10, 100, 1000)])
    assert flat is not None and flat.exponent.centre == pytest.approx(0) and flat.r_squared == 1


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Of 200 noisy sets of 6 cells in two groups: binomially, 0.95 gives fewer than 180 once in
    2,000 times."""
    hits = 0
    for seed in range(200):
        samples = sampled([1e3, 1e4, 1e5], 3.0, 0.1, 0.02, group="a", seed=seed)
        samples += sampled([1e3, 1e4, 1e5], 4.0, 0.1, 0.02, group="b", seed=seed + 1000)
        law = fit(samples, seed)
        assert law is not None
        hits += law.exponent.low <= 0.1 <= law.exponent.high
    assert 180 <= hits < 200
