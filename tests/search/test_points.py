"""Points of the budget: scores along a run that stop nothing and count as no hurdle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.campaign import queries
from search.campaign.controller import Controller
from search.campaign.history import fold
from search.campaign.integrity import check
from search.campaign.progress import progress
from search.campaign.replay import replay
from search.config.places import evenly
from search.config.plugins import stored_config
from search.config.schema import BudgetSpec, FinalSpec
from search.report import data
from search.report.queries import curves, runs
from search.storage.store import Store
from tests.search.instant import InstantEvaluator, launch, make_config, outcome_of
from tests.search.recorded import ask, candidates
from workers.spec.outcome import Job, Outcome, Unit

HURDLES = [25, 75]
ALONG = [30, 59, 88, 117, 146]
"""Five points of 175 steps, at whole steps."""


def budget(points: int) -> BudgetSpec:
    return BudgetSpec(unit="steps", base=25.0, hurdles=2, points=points)


def searched(folder: Path, points: int, evaluator: InstantEvaluator | None = None) -> str:
    url = f"sqlite:///{folder}/{points}.db"
    with Store.open(url) as store:
        campaign = launch(store, candidates=80, budget=budget(points))
        Controller(store, campaign, evaluator or InstantEvaluator(3)).run()
    return url


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("points")


@pytest.fixture(scope="module")
def plain(folder: Path) -> str:
    return searched(folder, 0)


@pytest.fixture(scope="module")
def pointed(folder: Path) -> str:
    return searched(folder, 5)


def endings(url: str) -> list[tuple[Any, ...]]:
    """All that says how runs ended, but for their curves."""
    return ask(
        url, "SELECT sequence, candidate_id, kind, seed, amount, hurdles, hurdles_passed, outcome, "
        "val_loss, test_loss, steps FROM evaluations ORDER BY sequence"
    )  # fmt: skip


def test_points_change_nothing_but_curves(plain: str, pointed: str) -> None:
    assert endings(pointed) == endings(plain)
    assert candidates(pointed) == candidates(plain)


def test_the_curve_has_hurdles_and_points_as_far_as_a_run_came(pointed: str) -> None:
    whole = sorted([*HURDLES, *ALONG, 175])
    found = ask(pointed, "SELECT kind, hurdles_passed, outcome, curve FROM evaluations")
    lengths: dict[int, int] = {}
    for kind, went_over, outcome, curve in found:
        places = [point[0] for point in json.loads(str(curve))]
        passed = int(str(went_over))
        if outcome == "completed" and kind == "search":
            ends = (*HURDLES, 175)[passed]
            assert places == [at for at in whole if at <= ends]
            lengths[passed] = len(places)
        elif outcome == "completed":
            assert (places, passed) == (whole, 0)
    assert lengths == {0: 1, 1: 4, 2: 8}  # each case is among them


def test_status_counts_no_point(plain: str, pointed: str) -> None:
    with Store.open(plain) as before, Store.open(pointed) as after:
        summed = queries.summary(after, "test").progress
        assert summed == queries.summary(before, "test").progress
        spec = stored_config(after.campaign("test").config, "test").search
        assert summed == progress(fold(spec, after.events(1)))
        assert len(summed.stopped_at) == len(summed.reached) == len(summed.went_on) == 2
        assert sum(summed.stopped_at) > 0


def test_the_report_reads_them(plain: str, pointed: str) -> None:
    with Store.open(plain) as before, Store.open(pointed) as after:
        (curve,) = curves(after, "test", [1])
        assert [point.steps for point in curve.points] == sorted([*HURDLES, *ALONG, 175])
        old, new = runs(before, "test"), runs(after, "test")
        for place in range(3):
            assert data.hurdle_bars(new, place) == data.hurdle_bars(old, place)
        assert data.hurdle_bars(new, 2) == []
        kinds, others = ([data.kind(run, budget(0), "done") for run in each] for each in (new, old))
        assert kinds == others and len(set(kinds)) > 2
        parents = [{run.id: run for run in each} for each in (old, new)]
        gains = [
            [data.gain_over(ids.get(run.parent_id or 0), run) for run in each]
            for ids, each in zip(parents, (old, new), strict=True)
        ]
        assert gains[0] == gains[1]  # compared at the last hurdle that both reached, or the end


def test_replay_and_check_find_nothing(pointed: str) -> None:
    with Store.open(pointed) as store:
        found = replay(store, "test")
    assert (found.difference, found.candidates) == (None, 80)
    assert check(pointed).findings == []


def test_drained_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    def once(name: str, stops: Iterator[int]) -> str:
        url = f"sqlite:///{tmp_path}/{name}.db"
        with Store.open(url) as store:
            campaign = launch(store, candidates=60, budget=budget(5))
            for stop in stops:

                def drain_at(job: Job, stop: int = stop) -> Outcome:
                    if job.id >= stop:
                        controller.drain()  # noqa: B023
                    return outcome_of(job)

                controller = Controller(store, campaign, InstantEvaluator(1, drain_at))
                controller.run()
            Controller(store, campaign, InstantEvaluator()).run()
        return url

    parts, whole = once("parts", iter((10, 35))), once("whole", iter(()))
    assert endings(parts) == endings(whole)
    assert candidates(parts) == candidates(whole)


def test_a_run_that_did_not_complete_tells_of_the_hurdles_it_passed(tmp_path: Path) -> None:
    """Its last score is at no hurdle, wherever that stands in the curve."""

    def slow(job: Job) -> Outcome:
        made = outcome_of(job)
        if job.id % 2 == 0 and made.hurdles_passed == 2 and not job.test:
            early = tuple(point for point in made.curve if point.steps <= 75)
            return Outcome("timed_out", "too long", hurdles_passed=1, curve=early)
        return made

    plain, pointed = (searched(tmp_path, points, InstantEvaluator(1, slow)) for points in (0, 5))
    assert endings(pointed) == endings(plain)
    assert any("timed_out" in row for row in endings(plain))


def test_final_runs_are_scored_on_at_the_same_distances() -> None:
    spec = make_config(budget=budget(5), final=FinalSpec(budget=1.5)).search
    assert spec.final_amount == 262
    assert spec.final_points == (25, 30, 59, 75, 88, 117, 146, 175, 205, 234)
    short = make_config(budget=budget(5), final=FinalSpec(budget=0.5)).search
    assert short.final_points == (25, 30, 59, 75)
    without = make_config(budget=budget(0), final=FinalSpec(budget=3)).search
    assert without.final_points == (25, 75, 175)


@given(
    st.sampled_from(("seconds", "steps", "tokens", "flops")),
    st.integers(1, 400), st.integers(0, 5), st.integers(2, 4), st.integers(0, 40),
)  # fmt: skip
def test_points_lie_beside_the_hurdles_and_before_the_end(
    unit: Unit, base: int, hurdles: int, eta: int, points: int
) -> None:
    at = base if unit in ("steps", "tokens") else base / 7
    spec = BudgetSpec(unit=unit, base=at, hurdles=hurdles, eta=eta, points=points)
    found = spec.points_at
    places = sorted((*spec.hurdles_at, *found, spec.full))
    assert len(found) <= points and found == tuple(sorted(found))
    assert all(b - a > 1e-9 * spec.full for a, b in pairwise(places))
    assert places[-1] == spec.full
    assert [places[place] for place in spec.hurdle_places] == list(spec.hurdles_at)
    step = spec.full / (points + 1)
    for number in range(1, points + 1):  # each place that was asked for is scored
        wanted = number * step
        slack = 1 if unit in ("steps", "tokens") else 1e-6 * spec.full
        assert any(-1e-6 * spec.full <= place - wanted <= slack for place in places)


def test_evenly_keeps_whole_steps_apart() -> None:
    assert evenly("steps", 4.0, 9) == (1.0, 2.0, 3.0)
    assert evenly("seconds", 3.0, 2) == (1.0, 2.0)
    assert evenly("seconds", 3.0, 2, beside=(2.0,)) == (1.0,)
    assert evenly("seconds", 3.0, 2, end=4.5) == (1.0, 2.0, 3.0, 4.0)
    assert evenly("seconds", 3.0, 0, end=9.0) == ()
