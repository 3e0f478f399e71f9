"""More than one objective: which points beat which, and which of the others stand apart.

Non-dominated rank and crowding distance are those of NSGA-II (Deb et al. 2002). A point is a tuple
of values, one for each objective, and lower is better in all of them. A value may be infinite,
where an objective could not be measured; none is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite
from operator import le

Point = tuple[float, ...]


def dominates(one: Point, other: Point) -> bool:
    """Whether `one` is as good in every objective and better in at least one."""
    return one != other and all(map(le, one, other))


def ranks(points: Sequence[Point]) -> list[int]:
    """The front of each point: 0 for those that no other dominates, 1 for those that are in front 0
    once these are gone, and so on.

    Points come to their front in rising order, so that only earlier ones can dominate them, and a
    front without one that does has none behind it either: the front is found by halving (efficient
    non-dominated sort, Zhang et al. 2015).
    """
    fronts: list[list[Point]] = []
    rank_of: dict[Point, int] = {}
    for point in sorted(set(points)):
        low, high = 0, len(fronts)
        while low < high:
            middle = (low + high) // 2
            if _dominated(point, fronts[middle]):
                low = middle + 1
            else:
                high = middle
        if low == len(fronts):
            fronts.append([])
        fronts[low].append(point)
        rank_of[point] = low
    return [rank_of[point] for point in points]


def _dominated(point: Point, front: Sequence[Point]) -> bool:
    """The latest members are the nearest, so they are asked first."""
    return any(dominates(other, point) for other in reversed(front))


def crowding(front: Sequence[Point]) -> list[float]:
    """How far each point of a front is from its neighbours: the sum over the objectives of the
    distance between the next lower and the next higher point, in shares of the front's range.

    It is infinite for the points at the end of any objective. Equal points count as one, and all of
    them have its distance.
    """
    found = dict.fromkeys(front, 0.0)
    for place in range(len(front[0]) if front else 0):
        line = sorted(found, key=lambda point: (point[place], point))
        found[line[0]] = found[line[-1]] = inf
        known = [point[place] for point in line if isfinite(point[place])]
        width = known[-1] - known[0] if known else 0.0
        if width > 0:
            for before, point, after in zip(line, line[1:], line[2:], strict=False):
                gap = _gap(before[place], after[place])
                found[point] += gap / width
    return [found[point] for point in front]


def _gap(low: float, high: float) -> float:
    return 0.0 if low == high else high - low


def knee(front: Sequence[Point]) -> int:
    """The place of the point that stands out most towards the lowest values.

    Every objective is scaled to 0 at the front's lowest value and 1 at its highest; the knee has
    the lowest sum. With two objectives it is the point that is farthest from the line through the
    ends of the front (Das 1999). Of equals the first is taken. An objective that was not measured
    counts as 1. There must be a point.
    """
    scales = [_scale([point[place] for point in front]) for place in range(len(front[0]))]

    def height(point: Point) -> float:
        return sum(
            (value - low) / width if isfinite(value) else 1.0
            for value, (low, width) in zip(point, scales, strict=True)
        )

    return min(range(len(front)), key=lambda place: height(front[place]))


def _scale(values: Sequence[float]) -> tuple[float, float]:
    """The lowest finite value and the range, which is 1 where there is none."""
    known = [value for value in values if isfinite(value)]
    low = min(known, default=0.0)
    return low, (max(known, default=0.0) - low) or 1.0
