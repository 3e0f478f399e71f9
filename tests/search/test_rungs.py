"""Candidates that wait at hurdles: who goes on, and that no hurdle gives more than its share."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.evolution.rungs import RESERVE, Rungs, places
from tests.benchmarks.hurdles import Curve, budget_of, promoting


def filled(losses: list[float], eta: int = 2, reserve: int = 0) -> Rungs:
    rungs = Rungs(2, eta, reserve)
    for id, loss in enumerate(losses, 1):
        rungs.arrive(id, 0, loss)
    return rungs


def test_the_best_that_waits_goes_on() -> None:
    rungs = filled([3.0, 1.0, 2.0, 4.0])
    assert rungs.next(open=True) == 2
    assert rungs.next(open=True, going={2}) == 3
    assert rungs.next(open=True, going={2, 3}) is None
    rungs.leave(2)
    assert 2 not in rungs and len(rungs) == 3
    assert rungs.next(open=True) == 3 and rungs.next(open=True, going={3}) is None


def test_the_highest_hurdle_comes_first() -> None:
    rungs = filled([1.0, 2.0, 3.0, 4.0])
    for id in (1, 2):
        rungs.leave(id)
        rungs.arrive(id, 1, 1.0)
    assert rungs.next(open=True) == 1, "of equal losses the lower id"
    assert rungs.hurdle(1) == 1
    assert rungs.next(open=True, going={1}) is None


def test_the_last_arrivals_give_places_when_no_child_is_to_come() -> None:
    rungs = filled([float(number) for number in range(RESERVE + 2)], reserve=RESERVE)
    assert rungs.next(open=True) == 1 and rungs.next(open=True, going={1}) is None
    assert rungs.next(open=False, going={1}) == 2
    assert (places(17, 2, True, 16), places(18, 2, True, 16), places(18, 2, False, 16)) == (0, 1, 9)


def test_one_that_does_not_wait_cannot_go_on() -> None:
    with pytest.raises(KeyError):
        filled([1.0]).leave(2)


@given(
    st.lists(st.tuples(st.sampled_from(["child", "end"]), st.floats(0, 9)), max_size=120),
    st.sampled_from([2, 3, 4]),
    st.integers(1, 3),
    st.sampled_from([0, 3, 16]),
    st.booleans(),
)
def test_no_hurdle_gives_more_than_its_share_and_nobody_goes_on_twice(
    moves: list[tuple[str, float]], eta: int, hurdles: int, reserve: int, drained: bool
) -> None:
    """A campaign of any number of workers, whose runs end in any order."""
    rungs, born = Rungs(hurdles, eta, reserve), 0
    running: dict[int, int] = {}  # where each will be paused
    reached, went_on = [0] * hurdles, [set[int]() for _ in range(hurdles)]

    def promote(open: bool) -> bool:
        going = {id for id, hurdle in running.items() if hurdle}
        id = rungs.next(open, going)
        if id is None:
            return False
        hurdle = rungs.hurdle(id)
        assert id not in went_on[hurdle] and id not in running
        better = sum(
            (loss, other) < (losses[id, hurdle], id)
            for (other, at), loss in losses.items()
            if at == hurdle and other not in went_on[hurdle]
        )
        assert better == 0, "the best that waits"
        went_on[hurdle].add(id)
        assert len(went_on[hurdle]) <= reached[hurdle] / eta
        running[id] = hurdle + 1
        return True

    def end(id: int, loss: float) -> None:
        hurdle = running.pop(id)
        if hurdle:
            rungs.leave(id)
        if hurdle < hurdles:
            rungs.arrive(id, hurdle, loss)
            losses[id, hurdle] = loss
            reached[hurdle] += 1

    losses: dict[tuple[int, int], float] = {}
    for kind, loss in moves:
        if kind == "end" and running:
            end(sorted(running)[int(loss * 7) % len(running)], loss)
        elif not promote(open=True):
            born += 1
            running[born] = 0
    while drained and (running or promote(open=False)):
        for id in list(running):
            end(id, float(id % 5))
        while promote(open=False):
            pass
    if drained:
        assert [len(ids) for ids in went_on] == [count // eta for count in reached]


@pytest.mark.parametrize("better_with_time", [0.0, 0.02])
def test_a_simulated_campaign_keeps_its_promise_and_its_winner(better_with_time: float) -> None:
    """Also where children get better, which has other rules train far too many."""
    rng, points = Random(0), (1.0, 10.0, 100.0, 1000.0)
    order = [Curve(1, points, (9.0, 9.0, 9.0, 9.0))]
    for number in range(2, 402):
        final = rng.gauss(5 - better_with_time * number, 1)
        noise = [rng.gauss(0, 0.3) for _ in points[1:]]
        losses = [final + 3 / (1 + at) + each for at, each in enumerate(noise)]
        order.append(Curve(number, points, (*losses, final)))
    budget = budget_of("top", 2, 3, 1000)
    made = promoting(order, budget, RESERVE)
    assert made.in_full == pytest.approx(1 / 8, abs=0.005)
    best = sorted(order, key=lambda curve: curve.losses[-1])[:3]
    assert made.winner in {curve.id for curve in best}
    assert made.cost < 0.28
