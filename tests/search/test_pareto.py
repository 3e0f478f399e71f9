"""Rank, crowding and knee against their definitions, written out naively."""

from __future__ import annotations

from math import hypot, inf, isinf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.evolution.pareto import Point, crowding, knee, ranks

VALUES = st.one_of(st.integers(0, 6).map(float), st.floats(-1e3, 1e3), st.just(inf))


def points(goals: int, least: int = 0) -> st.SearchStrategy[list[Point]]:
    return st.lists(st.tuples(*[VALUES] * goals), min_size=least, max_size=25)


MANY = st.integers(1, 4).flatmap(points)


def beats(one: Point, other: Point) -> bool:
    no_worse = [a <= b for a, b in zip(one, other, strict=True)]
    better = [a < b for a, b in zip(one, other, strict=True)]
    return all(no_worse) and any(better)


def peeled(found: list[Point]) -> list[int]:
    """Front after front is taken away (Deb et al. 2002, section III A)."""
    rank_of: dict[int, int] = {}
    rank = 0
    while len(rank_of) < len(found):
        left = [place for place in range(len(found)) if place not in rank_of]
        best = [p for p in left if not any(beats(found[q], found[p]) for q in left)]
        rank_of.update(dict.fromkeys(best, rank))
        rank += 1
    return [rank_of[place] for place in range(len(found))]


@given(MANY)
def test_ranks_are_those_of_peeling(found: list[Point]) -> None:
    assert ranks(found) == peeled(found)


def apart(front: list[Point]) -> dict[Point, float]:
    """The crowding distance of Deb et al. 2002, section III B, over distinct points."""
    total: dict[Point, float] = {}
    distinct = set(front)
    for point in distinct:
        total[point] = 0.0
        for place in range(len(point)):
            # The neighbours, where points of one value stand in the order of the others.
            lower = [q for q in distinct if (q[place], q) < (point[place], point)]
            higher = [q for q in distinct if (q[place], q) > (point[place], point)]
            if not lower or not higher:
                total[point] = inf
                break
            before = max(lower, key=lambda q: (q[place], q))[place]
            after = min(higher, key=lambda q: (q[place], q))[place]
            known = [q[place] for q in distinct if not isinf(q[place])]
            if known and max(known) > min(known) and after != before:
                total[point] += (after - before) / (max(known) - min(known))
    return total


@given(st.integers(1, 4).flatmap(lambda goals: points(goals, 1)))
def test_crowding_is_the_distance_between_the_neighbours(found: list[Point]) -> None:
    expected = apart(found)
    assert crowding(found) == pytest.approx([expected[point] for point in found])


@given(points(2, 1))
def test_both_ends_of_a_front_have_all_the_room(found: list[Point]) -> None:
    distances = dict(zip(found, crowding(found), strict=True))
    assert isinf(distances[min(found)]) and isinf(distances[max(found)])


@given(st.lists(st.tuples(*[st.integers(0, 50).map(float)] * 2), min_size=3, max_size=40))
def test_the_knee_of_two_objectives_is_farthest_from_the_line_through_the_ends(
    found: list[Point],
) -> None:
    front = sorted({point for point, rank in zip(found, ranks(found), strict=True) if rank == 0})
    width, height = front[-1][0] - front[0][0], front[0][1] - front[-1][1]
    if len(front) < 3:
        return
    scaled = [((x - front[0][0]) / width, (y - front[-1][1]) / height) for x, y in front]
    (x1, y1), (x2, y2) = scaled[0], scaled[-1]

    def across(x: float, y: float) -> float:
        return ((x2 - x1) * (y - y1) - (y2 - y1) * (x - x1)) / hypot(x2 - x1, y2 - y1)

    towards_the_ideal = [across(x, y) / across(0.0, 0.0) for x, y in scaled]
    assert towards_the_ideal[knee(front)] == pytest.approx(max(towards_the_ideal))


def test_the_knee_of_a_small_front() -> None:
    assert knee([(0.0, 10.0), (1.0, 2.0), (9.0, 1.0), (10.0, 0.0)]) == 1
    assert knee([(5.0,)]) == knee([(inf, inf)]) == 0
    assert knee([(0.0, 0.0, inf), (1.0, 1.0, 0.0), (0.0, 1.0, 0.5)]) in (0, 2)
