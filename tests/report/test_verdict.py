"""Intervals of means and of differences, against tables and SciPy; the words made of them."""

from __future__ import annotations

import math

import pytest

from search.report.verdict import compare, mean_interval, t_cdf, t_quantile


@pytest.mark.parametrize(
    ("probability", "freedom", "value"),
    [
        (0.975, 1, 12.706205), (0.975, 2, 4.302653), (0.975, 4, 2.776445), (0.95, 3, 2.353363),
        (0.975, 10, 2.228139), (0.995, 7, 3.499483), (0.975, 1e7, 1.959964),
    ],
)  # fmt: skip
def test_quantiles_are_those_of_the_tables(
    probability: float, freedom: float, value: float
) -> None:
    assert t_quantile(probability, freedom) == pytest.approx(value, abs=2e-6)


def test_the_distribution_is_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for freedom in (1.0, 1.7, 2.0, 3.4, 11.0, 250.0):
        for value in (-3.0, 0.0, 0.2, 1.0, 2.5, 9.0):
            assert t_cdf(value, freedom) == pytest.approx(stats.t.cdf(value, freedom), abs=1e-6)


def test_the_difference_is_welchs() -> None:
    """Worked by hand: means 2 and 4, squared errors 1/3 and 4/3, 25/9 over 1/18 + 16/18 degrees."""
    made = compare([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    half = t_quantile(0.975, (25 / 9) / (1 / 18 + 16 / 18)) * math.sqrt(5 / 3)
    assert made.difference is not None
    assert made.difference.centre == -2.0
    assert made.difference.high - made.difference.centre == pytest.approx(half)
    assert made.difference.low + made.difference.high == pytest.approx(-4.0)


def test_the_difference_is_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    first, second = [3.05, 3.06, 3.01, 3.04], [3.42, 3.39, 3.47]
    interval = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    made = compare(first, second).difference
    assert made is not None
    assert (made.low, made.high) == pytest.approx((interval.low, interval.high), rel=1e-6)


def test_a_mean_has_students_interval() -> None:
    made = mean_interval([1.0, 2.0, 3.0])
    assert made is not None
    assert (made.centre, made.high) == (2.0, pytest.approx(2 + 4.302653 / math.sqrt(3)))
    assert mean_interval([]) is None
    alone = mean_interval([1.0])
    assert alone is not None and (alone.low, alone.high) == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("scores", "baseline", "word"),
    [
        ([3.0, 3.1, 3.05], [3.4, 3.5, 3.45], "better"),
        ([3.4, 3.5, 3.45], [3.0, 3.1, 3.05], "not better"),
        ([3.0, 3.5, 3.2], [3.3, 3.1, 3.6], "cannot tell"),
        ([1.0], [3.0, 3.0], "cannot tell"),
        ([1.0, 1.1], [3.0], "cannot tell"),
        ([], [3.0, 3.1], "cannot tell"),
        ([2.0, 2.0], [3.0, 3.0], "better"),
        ([3.0, 3.0], [3.0, 3.0], "not better"),
    ],
)
def test_the_word_is_that_of_the_interval(
    scores: list[float], baseline: list[float], word: str
) -> None:
    assert compare(scores, baseline).word == word
