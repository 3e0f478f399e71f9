"""Halving hurdles: where they stand, how high, what they save."""

from __future__ import annotations

from random import Random
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.config.schema import BudgetSpec
from search.evolution.hurdles import MINIMUM, Hurdles, RollingMedian, spent

LOSSES = st.lists(st.floats(0, 10), min_size=MINIMUM, max_size=60)


def bar(hurdles: Hurdles, index: int = 0) -> float | None:
    return hurdles.bars()[index].threshold


def filled(losses: list[float], window: int = 100) -> Hurdles:
    hurdles = Hurdles([25.0], window)
    for loss in losses:
        hurdles.record([loss])
    return hurdles


def test_bands_are_primers() -> None:
    """7 hours in four halvings (facts: 812.9, 2438.7, 5690.3 and 12,193.5 s of 25,200)."""
    budget = BudgetSpec(unit="seconds", base=25200 / 31, hurdles=4)
    assert [round(point, 1) for point in budget.points] == [812.9, 2438.7, 5690.3, 12193.5]
    assert budget.full == pytest.approx(25200)


def test_nobody_is_stopped_before_enough_was_seen() -> None:
    losses = [float(i) for i in range(MINIMUM - 1)]
    assert bar(filled(losses)) is None
    assert bar(filled([*losses, *losses])) is None  # unique ones count
    assert bar(filled([*losses, 99.0])) == 2.0


@given(LOSSES, st.randoms(use_true_random=False))
def test_repeated_losses_do_not_move_the_bar(losses: list[float], rng: Random) -> None:
    again = losses + rng.choices(losses, k=30)
    assert bar(filled(again)) == bar(filled(losses))


@given(LOSSES)
def test_at_least_half_of_what_was_seen_passes(losses: list[float]) -> None:
    threshold = bar(filled(losses))
    unique = set(losses)
    if threshold is not None:
        assert 2 * sum(loss <= threshold for loss in unique) >= len(unique)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=80), st.integers(5, 9))
def test_the_rolling_median_is_the_median_of_the_latest(values: list[int], window: int) -> None:
    rolling = RollingMedian(window)
    for value in values:
        rolling.add(float(value))
    latest = list(dict.fromkeys(reversed(values)))[:window]
    assert rolling.median() == median(latest)


def test_only_the_window_counts() -> None:
    assert (
        bar(filled([100.0] * 5 + [50.0 + i for i in range(50)] + [float(i) for i in range(10)], 10))
        == 4.5
    )


def test_each_hurdle_sees_those_that_reach_it() -> None:
    hurdles = Hurdles([25.0, 75.0], 100)
    for i in range(10):
        hurdles.record([float(i), i / 2, i / 4] if i < 6 else [float(i)])
    hurdles.record([None, 7.0])
    assert [hurdle.at for hurdle in hurdles.bars()] == [25.0, 75.0]
    assert (bar(hurdles, 0), bar(hurdles, 1)) == (4.5, 1.5)


def test_spent() -> None:
    assert [spent((25.0, 75.0), 175.0, passed) for passed in range(3)] == [25.0, 75.0, 175.0]


def test_mean_cost_of_halving_is_primers() -> None:
    """With half stopped at each of four hurdles a candidate costs 1/6.2 of the full budget."""
    budget = BudgetSpec(unit="seconds", base=25200 / 31, hurdles=4)
    shares = [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 16]
    mean = sum(s * spent(budget.points, budget.full, k) for k, s in enumerate(shares))
    assert mean == pytest.approx(4064.5, abs=0.1)
