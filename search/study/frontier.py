"""Where programs stand against a baseline of many sizes, at equal cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from search.report.verdict import Comparison, mean_interval
from search.study.grid import Cell

SLACK = 0.05
"""A cost that is beyond the baseline's largest or smallest one by no more than this share is taken
for that one: a router adds a little to a block."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A cost at which programs are compared: a metric of the table, and its name in sentences."""

    metric: str
    name: str
    unit: str

    def of(self, cell: Cell) -> float | None:
        return cell.of(self.metric)


AXES = (
    Axis("flops_per_token", "active FLOPs", "FLOPs a token"),
    Axis("params", "parameters", "parameters"),
    Axis("step_time_s", "step time", "s a step"),
)


@dataclass(frozen=True, slots=True)
class Placed:
    """A cell against the baseline's frontier at the same cost `x` on an axis, paired by seed. None
    where the baseline has no cell so cheap, or none so dear."""

    cell: Cell
    axis: Axis
    x: float
    against: Comparison | None

    @property
    def better(self) -> bool:
        return self.against is not None and self.against.word == "better"


def frontier(cells: Iterable[Cell], cost: Callable[[Cell], float | None]) -> list[Cell]:
    """The cells that no other one beats at its cost or less, the cheapest first."""
    costed = [(x, cell.mean, cell) for cell in cells if (x := cost(cell)) and cell.mean]
    found: list[Cell] = []
    best = math.inf
    for _, mean, cell in sorted(costed, key=lambda each: each[:2]):
        if mean < best:
            found.append(cell)
            best = mean
    return found


def place(cell: Cell, baseline: Sequence[Cell], axis: Axis) -> Placed | None:
    """The cell against cells that learned from the same text for the same amount; None where no
    seed has a score of both. Between two cells of the frontier, the baseline's loss is a straight
    line over the logarithm of the cost."""
    x = axis.of(cell)
    if x is None or cell.mean is None:
        return None
    ends = _around(frontier(baseline, axis.of), axis, x)
    if ends is None:
        return Placed(cell, axis, x, None)
    low, high, share = ends
    differences = [
        loss - (1 - share) * low.losses[seed] - share * high.losses[seed]
        for seed, loss in cell.losses.items()
        if seed in low.losses and seed in high.losses
    ]
    count = len(differences)
    if not count:
        return None
    return Placed(cell, axis, x, Comparison(mean_interval(differences), count, count))


def _around(
    cells: Sequence[Cell], axis: Axis, x: float
) -> tuple[Cell, Cell, float] | None:  # fmt: skip
    """The cells next to a cost on either side, and how far it is from the first to the second."""
    costs = [axis.of(cell) or 0.0 for cell in cells]
    if not cells or not costs[0] * (1 - SLACK) <= x <= costs[-1] * (1 + SLACK):
        return None
    above = next((place for place, cost in enumerate(costs) if cost >= x), len(cells) - 1)
    below = above if costs[above] <= x or above == 0 else above - 1
    if below == above:
        return cells[below], cells[above], 0.0
    share = math.log(x / costs[below]) / math.log(costs[above] / costs[below])
    return cells[below], cells[above], share
