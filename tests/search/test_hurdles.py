"""Halving hurdles: where they stand, how high, what they save."""

from __future__ import annotations

from random import Random
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.config.schema import BudgetSpec
from search.evolution.hurdles import MINIMUM, Hurdles, RollingMedian, TopBar, spent

LOSSES = st.lists(st.floats(0, 10), min_size=MINIMUM, max_size=60)


def bar(hurdles: Hurdles, index: int = 0) -> float | None:
    return hurdles.bars()[index].threshold


def filled(losses: list[float], window: int = 100) -> Hurdles:
    hurdles = Hurdles([25.0], window, "median", 2)
    for loss in losses:
        hurdles.record([loss], 0)
    return hurdles


def test_bands_are_primers() -> None:
    """7 hours in four halvings (facts: 812.9, 2438.7, 5690.3 and 12,193.5 s of 25,200)."""
    budget = BudgetSpec(unit="seconds", base=25200 / 31, hurdles=4)
    assert [round(point, 1) for point in budget.hurdles_at] == [812.9, 2438.7, 5690.3, 12193.5]
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
    hurdles = Hurdles([25.0, 75.0], 100, "median", 2)
    for i in range(10):
        hurdles.record([float(i), i / 2, i / 4] if i < 6 else [float(i)], 0)
    hurdles.record([None, 7.0], 1)
    assert [hurdle.at for hurdle in hurdles.bars()] == [25.0, 75.0]
    assert (bar(hurdles, 0), bar(hurdles, 1)) == (4.5, 1.5)


def test_spent() -> None:
    assert [spent((25.0, 75.0), 175.0, passed) for passed in range(3)] == [25.0, 75.0, 175.0]


def test_mean_cost_of_halving_is_primers() -> None:
    """With half stopped at each of four hurdles a candidate costs 1/6.2 of the full budget."""
    budget = BudgetSpec(unit="seconds", base=25200 / 31, hurdles=4)
    shares = [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 16]
    mean = sum(s * spent(budget.hurdles_at, budget.full, k) for k, s in enumerate(shares))
    assert mean == pytest.approx(4064.5, abs=0.1)


def test_eta_is_the_share_and_the_length_of_bands() -> None:
    budget = BudgetSpec(unit="steps", base=10, hurdles=3, eta=4)
    assert budget.hurdles_at == (10.0, 50.0, 210.0) and budget.full == 850.0
    assert budget.full_share == 1 / 64
    costs = [spent(budget.hurdles_at, budget.full, k) for k in range(4)]
    shares = [3 / 4, 3 / 16, 3 / 64, 1 / 64]
    assert sum(s * c for s, c in zip(shares, costs, strict=True)) == pytest.approx(4 * 10)


def top(losses: list[float], share: float) -> tuple[TopBar, list[bool]]:
    """Children that meet one bar after the other, and whether each went on."""
    bar, went_on = TopBar(share), []
    bar.add(5.0, None)  # the seed program's
    for loss in losses:
        threshold = bar.threshold()
        assert threshold is not None
        went_on.append(loss <= threshold)
        bar.add(loss, went_on[-1])
    return bar, went_on


@given(
    st.lists(st.floats(0, 10).filter(lambda loss: loss != 5.0), max_size=60, unique=True),
    st.sampled_from([2, 3, 4]),
)
def test_only_the_top_share_of_all_that_came_goes_on(losses: list[float], eta: int) -> None:
    _, went_on = top(losses, 1 / eta)
    for place, on in enumerate(went_on):
        before = [5.0, *losses[:place]]
        better = sum(loss < losses[place] for loss in before)
        if on:
            assert better + 1 <= max(1, (len(before) + 1) // eta)


@given(st.lists(st.floats(0, 10), max_size=60), st.sampled_from([2, 3, 4]))
def test_the_best_so_far_always_goes_on(losses: list[float], eta: int) -> None:
    _, went_on = top(losses, 1 / eta)
    for place, on in enumerate(went_on):
        if losses[place] <= min([5.0, *losses[:place]]):
            assert on


def test_the_first_wave_has_the_seed_program_to_pass() -> None:
    assert TopBar(0.5).threshold() is None
    _, went_on = top([5.1, 4.9, 6.0, 5.2], 0.5)
    assert went_on == [False, True, False, False]


@pytest.mark.parametrize("eta", [2, 3, 4])
@pytest.mark.parametrize("progress", [0.0, 0.003, 0.01])
@pytest.mark.parametrize(("strictness", "most"), [(0.05, 1.4), (0.5, 1.1)])
def test_the_share_is_held_while_the_search_gets_better(
    eta: int, progress: float, strictness: float, most: float
) -> None:
    """Children get better by `progress` standard deviations each; 400 of them."""
    rng = Random(0)
    losses = [100 + rng.gauss(-progress * number, 1) for number in range(400)]
    bar, went_on = TopBar(1 / eta, strictness), []
    for loss in [100.0, *losses]:
        threshold = bar.threshold()
        on = threshold is None or loss <= threshold
        bar.add(loss, None if threshold is None else on)
        went_on.append(on)
    assert 0.85 / eta < sum(went_on) / len(went_on) < most / eta


def test_repeated_losses_count_once_for_the_top() -> None:
    _, once = top([4.0, 3.0, 2.0], 0.5)
    bar = TopBar(0.5)
    for loss in [5.0, 4.0, 4.0, 4.0, 3.0, 2.0]:
        bar.add(loss, None)
    assert once == [True, True, True]
    assert bar.threshold() == 3.0


@pytest.mark.parametrize(
    ("hurdles_reached", "passed", "expected"),
    [
        (3, 3, [7.0, 2.0, 1.0]),  # 20 too many went on: 41 / 2e, 41 / 2e^2, 41 / 2e^4
        (1, 0, [20.0, None, None]),  # none did
        (2, 1, [7.0, 20.0, None]),
    ],
)
def test_each_bar_falls_with_what_went_on_there_and_faster_later(
    hurdles_reached: int, passed: int, expected: list[float | None]
) -> None:
    """Forty children with losses from 1 to 40."""
    hurdles = Hurdles([25.0, 75.0, 175.0], 100, "top", 2)
    for loss in range(1, 41):
        hurdles.record([float(loss)] * hurdles_reached, passed)
    assert [each.threshold for each in hurdles.bars()] == expected


def test_a_seed_program_is_seen_and_not_counted() -> None:
    hurdles = Hurdles([25.0], 100, "top", 2)
    for loss in range(1, 41):
        hurdles.record([float(loss)], 1, judged=False)
    assert bar(hurdles) == 20.0
