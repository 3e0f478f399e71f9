"""What charts show, against brute force and against what `status` counts."""

from __future__ import annotations

from collections import Counter
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.campaign import queries as campaign_queries
from search.config.schema import BudgetSpec
from search.report import data, queries
from search.report.queries import Run
from search.storage.store import Store

BASE = Run(
    id=1, parent_id=None, mutation="seed", duplicate_of=None, rejections={}, sequence=1,
    outcome="completed", hurdles_passed=1, hurdles=((50.0, 3.0),), val_loss=2.0, val_bpb=3.0,
    params=100, flops_per_token=200, step_time_s=0.1, losses=(3.0, 2.0),
)  # fmt: skip


def run(id: int, **changes: object) -> Run:
    return BASE._replace(id=id, sequence=id, **changes)


def child(id: int, parent: int, loss: float, mutation: str = "insert", **changes: object) -> Run:
    values = {"val_loss": loss, "losses": (loss + 1, loss), **changes}
    return run(id, parent_id=parent, mutation=mutation, **values)


grid = st.integers(0, 6).map(float)


class TestPareto:
    @given(st.lists(st.tuples(grid, grid), max_size=30))
    def test_it_is_what_nobody_beats(self, points: list[tuple[float, float]]) -> None:
        front = data.pareto(points)
        unbeaten = [
            place
            for place, (x, y) in enumerate(points)
            if not any(a <= x and b <= y and (a < x or b < y) for a, b in points)
        ]
        assert sorted(front) == unbeaten
        assert [points[place][0] for place in front] == sorted(points[p][0] for p in front)

    def test_a_dominated_point_is_out(self) -> None:
        assert data.pareto([(1, 3), (2, 2), (2, 4), (3, 1)]) == [0, 1, 3]


class TestMutations:
    def test_a_child_is_compared_where_both_were_scored(self) -> None:
        parent = run(1, losses=(3.0, 2.0))
        stopped = child(2, 1, 2.9, losses=(2.9,), hurdles_passed=0)
        assert data.gain_over(parent, stopped) == pytest.approx(0.1)
        assert data.gain_over(stopped, run(3, losses=(3.2, 1.0))) == pytest.approx(-0.3)
        assert data.gain_over(None, parent) is None
        assert data.gain_over(run(1, losses=()), parent) is None

    def test_rows_count_and_average(self) -> None:
        runs = [
            run(1),
            child(2, 1, 1.5),
            child(3, 1, 2.1),
            child(4, 2, 1.5, duplicate_of=2),
            child(5, 3, 0.0, outcome="diverged", val_loss=None, losses=()),
            child(6, 2, 1.0, "swap"),
        ]
        swap, insert = data.mutation_rows(runs)
        assert insert[:6] == ("insert", 4, 1, 2, 2, 1)
        assert insert.gain is not None and swap.gain is not None
        assert insert.gain.centre == pytest.approx(fmean([0.5, -0.1]))
        assert insert.best == pytest.approx(0.5)
        assert insert.share == 0.5
        assert swap.gain.centre == pytest.approx(0.5)

    def test_a_mutation_without_scores_comes_last(self) -> None:
        failed = child(3, 1, 0.0, "field", outcome="crashed", val_loss=None, losses=())
        rows = data.mutation_rows([run(1), child(2, 1, 9.0), failed])
        assert [row.mutation for row in rows] == ["insert", "field"]
        assert rows[1].gain is None and rows[1].share is None

    def test_campaigns_together_count_as_one_without_mixing_their_candidates(self) -> None:
        one = [run(1), child(3, 1, 1.5), child(2, 1, 1.9), child(4, 3, 1.5, duplicate_of=3)]
        other = [run(1, losses=(3.0, 1.0)), child(2, 1, 1.3), child(3, 2, 1.2, "swap")]
        insert, swap = sorted(data.mutation_rows(data.together([one, other])))
        assert insert[:6] == ("insert", 4, 1, 3, 3, 2)
        assert insert.gain is not None and swap.gain is not None
        assert insert.gain.centre == pytest.approx(fmean([0.5, 0.1, -0.3]))
        assert swap.gain.centre == pytest.approx(0.1)


class TestSearch:
    def test_the_best_so_far_only_falls(self) -> None:
        losses = [3.0, 3.2, None, 2.5, 2.5, 2.4]
        runs = [
            run(id, val_loss=loss, outcome="diverged" if loss is None else "completed")
            for id, loss in enumerate(losses, start=1)
        ]
        assert [each.id for each in data.best_so_far(runs)] == [1, 4, 6]

    def test_bars_are_told_where_they_move_and_at_the_end(self) -> None:
        bars = [None, 3.0, 3.0, 2.8, 2.8]
        runs = [run(id, hurdles=((50.0, bar),)) for id, bar in enumerate(bars, start=1)]
        assert data.hurdle_bars(runs, 0) == [(1, None), (2, 3.0), (4, 2.8), (5, 2.8)]
        assert data.hurdle_bars(runs, 1) == []

    def test_scores_are_bits_per_byte_where_that_is_one_factor(self) -> None:
        fixed = [run(1, val_loss=2.0, val_bpb=3.0), run(2, val_loss=4.0, val_bpb=6.0)]
        assert data.quality(fixed) == data.Quality("bits per byte", 1.5)
        for other in (run(3, val_bpb=None), run(3, val_loss=4.0, val_bpb=9.0)):
            assert data.quality([*fixed, other]).unit == "nats per token"
        assert data.quality([]).unit == "nats per token"

    def test_thinning_keeps_what_stands_out(self) -> None:
        runs = [run(id) for id in range(1, 1001)]
        assert data.thin(runs, 1000, ()) == runs
        shown = [each.id for each in data.thin(runs, 100, {500})]
        assert len(shown) == 101
        assert 500 in shown

    def test_an_axis_leaves_out_the_few_highest(self) -> None:
        limits = data.usual([*range(100), 10**9])
        assert limits is not None and limits[0] < 0 and 95 < limits[1] < 110
        assert data.usual([]) is None
        assert data.usual([2.0]) == (1.9, 2.1)


class TestAgainstStatus:
    """The same numbers as `status`, for a campaign that a controller ran."""

    def test_budget(self, played: Store) -> None:
        progress = campaign_queries.summary(played, "test").progress
        last = data.spending(
            queries.runs(played, "test"), BudgetSpec(unit="steps", base=25, hurdles=2)
        )[-1]
        assert last.spent == progress.spent > 0
        assert last.saved_by_hurdles == progress.saved_by_hurdles > 0
        assert last.saved_by_duplicates == progress.saved_by_duplicates

    def test_outcomes_and_refusals(self, played: Store) -> None:
        progress = campaign_queries.summary(played, "test").progress
        budget = BudgetSpec(unit="steps", base=25, hurdles=2)
        pieces = data.bins(
            queries.runs(played, "test"), lambda run: data.kind(run, budget, progress.phase)
        )
        outcomes: Counter[str] = Counter()
        refusals: Counter[str] = Counter()
        for piece in pieces:
            outcomes += piece.outcomes
            refusals += piece.refusals
        assert refusals == progress.rejected
        assert outcomes.total() == 150
        assert outcomes["duplicate"] == progress.duplicates
        completed = outcomes["trained in full"] + outcomes["stopped at a hurdle"]
        assert completed == progress.outcomes["completed"]
        assert outcomes["stopped at a hurdle"] == sum(progress.stopped_at)
        assert [piece.first for piece in pieces[1:]] == [piece.last + 1 for piece in pieces[:-1]]

    def test_the_best(self, played: Store) -> None:
        progress = campaign_queries.summary(played, "test").progress
        assert progress.best is not None
        assert data.best_so_far(queries.runs(played, "test"))[-1].id == progress.best.id
