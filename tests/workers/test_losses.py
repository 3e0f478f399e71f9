"""Losses of training: few points, whose means are those of all steps."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.training.losses import POINTS, TrainingLosses

calls = st.lists(st.tuples(st.integers(1, 40), st.floats(0.0, 9.0)), min_size=1, max_size=400)


@given(calls)
def test_points_are_means_of_the_steps_before_them(taken: list[tuple[int, float]]) -> None:
    kept = TrainingLosses()
    every: list[float] = []
    for steps, loss in taken:
        kept.add(steps, loss)
        every += [loss] * steps
    points = kept.points
    assert 1 <= len(points) <= POINTS
    assert points[-1][0] == len(every)
    begin = 0
    for end, loss in points:
        assert begin < end
        assert loss == pytest.approx(sum(every[begin:end]) / (end - begin), abs=1e-4)
        begin = end


def test_a_short_run_keeps_every_call() -> None:
    kept = TrainingLosses()
    for loss in (3.0, 2.5, 2.25):
        kept.add(8, loss)
    assert kept.points == ((8, 3.0), (16, 2.5), (24, 2.25))


def test_a_long_run_keeps_points_at_even_distances() -> None:
    kept = TrainingLosses()
    for number in range(1000):
        kept.add(32, float(number))
    points = [at for at, _ in kept.points]
    assert POINTS / 2 <= len(points) <= POINTS
    assert len({b - a for a, b in pairwise(points[:-1])}) == 1
    for begin, (end, loss) in zip([0, *points], kept.points, strict=False):
        assert loss == (begin // 32 + end // 32 - 1) / 2, "the mean of the calls in between"
