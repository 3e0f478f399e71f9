"""A program against a baseline of many sizes, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from search.study.frontier import AXES, frontier, place
from search.study.grid import Cell
from workers.spec.outcome import Outcome

PARAMS = next(axis for axis in AXES if axis.metric == "params")


def cell(params: int, *losses: float) -> Cell:
    """A cell whose runs have these losses, by seed from 0."""
    point: Any = None
    runs = {
        seed: Outcome("completed", val_bpb=loss, params=params) for seed, loss in enumerate(losses)
    }
    return Cell(point, 100.0, runs)


FAILED = Outcome("diverged", params=200)
BASELINE = [cell(400, 1.0, 1.2), cell(200, 3.0, 3.0), cell(100, 2.0, 2.2)]


def test_the_frontier_leaves_out_what_another_one_beats() -> None:
    assert [each.of("params") for each in frontier(BASELINE, PARAMS.of)] == [100, 400]
    twice = [cell(100, 3.0), cell(100, 2.0), cell(200, 2.0), cell(300, 1.0), cell(400)]
    assert [(each.of("params"), each.mean) for each in frontier(twice, PARAMS.of)] == [
        (100, 2.0),
        (300, 1.0),
    ]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (100, (2.0, 2.2)),
        (200, (1.5, 1.7)),  # half way by its logarithm
        (400, (1.0, 1.2)),
        (95, (2.0, 2.2)),
        (420, (1.0, 1.2)),
    ],
)
def test_a_cell_is_compared_at_its_own_cost_seed_by_seed(
    params: int, expected: tuple[float, float]
) -> None:
    """The third seed is none of the baseline's."""
    found = place(cell(params, 1.1, 1.5, 0.1), BASELINE, PARAMS)
    assert found is not None and found.against is not None and found.x == params
    differences = [1.1 - expected[0], 1.5 - expected[1]]
    assert found.against.difference is not None
    assert found.against.difference.centre == pytest.approx(sum(differences) / 2)
    assert found.against.runs == found.against.baseline_runs == 2


def test_seeds_that_an_end_of_the_line_lacks_are_left_out() -> None:
    found = place(cell(200, 1.4, 9.0), [cell(100, 2.0), cell(400, 1.0, 1.2)], PARAMS)
    assert found is not None and found.against is not None
    assert found.against.runs == 1 and found.against.difference is not None
    assert found.against.difference.centre == pytest.approx(1.4 - 1.5)


def test_what_pays_is_better_in_every_seed() -> None:
    found = place(cell(200, 1.0, 1.2), BASELINE, PARAMS)
    assert found is not None and found.better
    alone = place(cell(200, 1.0), BASELINE, PARAMS)
    assert alone is not None and not alone.better, "a single run has no interval"


def test_nothing_is_said_beyond_the_baseline() -> None:
    for params in (94, 421):
        found = place(cell(params, 1.0), BASELINE, PARAMS)
        assert found is not None and found.against is None and not found.better
    found = place(cell(200, 1.0), [], PARAMS)
    assert found is not None and found.against is None
    assert place(cell(200), BASELINE, PARAMS) is None


def test_a_cell_without_a_seed_that_the_baseline_has_is_compared_with_nothing() -> None:
    """Of two runs each, the other one failed on either side."""
    lone = Cell(
        cell(200).point, 100.0, {1: Outcome("completed", val_bpb=1.0, params=200), 0: FAILED}
    )
    assert place(lone, [cell(100, 2.0), cell(400, 1.0)], PARAMS) is None
