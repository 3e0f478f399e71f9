"""Campaigns that pause candidates at hurdles and have the best of them go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.campaign import queries
from search.campaign.asking import Asking
from search.campaign.controller import Controller
from search.campaign.history import fold
from search.campaign.integrity import check
from search.campaign.progress import Progress, progress
from search.campaign.replay import replay
from search.campaign.weights import discard
from search.config.schema import BudgetSpec
from search.errors import UsageError
from search.report.page import _tiles
from search.report.runs import tracked_runs
from search.report.view import read
from search.storage.store import Store
from tests.search.instant import InstantEvaluator, launch, make_config, outcome_of
from tests.search.recorded import ask, evaluations, rows
from workers.spec.outcome import Job, Outcome, Report

BUDGET = BudgetSpec(unit="steps", base=25.0, hurdles=2, rule="promote")
SETTINGS: dict[str, Any] = {"candidates": 90, "budget": BUDGET}


on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


def pausing(job: Job) -> Outcome:
    """What a worker answers: the run as it stands where it is paused. One in eight that goes on
    diverges, and one in eight loses its worker twice, which then knows no hurdle."""
    whole = outcome_of(job)
    if job.pause is None or whole.status != "completed":
        return whole
    if job.pause.hurdle is None and job.id % 8 == 0:
        return Outcome("diverged", "loss is not finite", steps=80, hurdles_passed=2)
    if job.pause.hurdle is None and job.id % 8 == 1:
        return Outcome("crashed", "its worker died 2 times")
    if job.pause.hurdle is None:
        return whole
    passed = job.pause.hurdle
    curve = whole.curve[: passed + 1]
    return replace(
        whole, reason=f"paused at hurdle {passed + 1} of 2", curve=curve, hurdles_passed=passed,
        val_loss=curve[-1].val_loss, val_bpb=curve[-1].val_loss * 1.4427, steps=curve[-1].steps,
        tokens=curve[-1].tokens, train_seconds=curve[-1].train_seconds,
    )  # fmt: skip


def run(store: Store, capacity: int = 1, **settings: Any) -> tuple[Progress, InstantEvaluator]:
    evaluator = InstantEvaluator(capacity, pausing)
    campaign = launch(store, **{**SETTINGS, **settings})
    return Controller(store, campaign, evaluator).run(), evaluator


@on_sqlite
@pytest.mark.parametrize("capacity", [1, 5])
def test_every_hurdle_gives_exactly_its_share(store: Store, url: str, capacity: int) -> None:
    shown, evaluator = run(store, capacity)
    assert (shown.phase, shown.pending, shown.paused) == ("done", 0, 0)
    assert shown.trained + shown.duplicates == 90
    assert shown.went_on == tuple(reached // 2 for reached in shown.reached)
    assert shown.reached[1] == shown.went_on[0]
    assert shown.stopped_at == tuple(
        there - on for there, on in zip(shown.reached, shown.went_on, strict=True)
    )
    jobs = [(job.id, job.pause.hurdle) for job in evaluator.submitted if job.pause is not None]
    assert len(set(jobs)) == len(jobs), "nobody goes on twice from one hurdle"
    stages = Counter(hurdle for _, hurdle in jobs)
    assert stages[0] == shown.children and (stages[1], stages[None]) == shown.went_on
    later = [job for job in evaluator.submitted if job.pause and job.pause.hurdle != 0]
    assert later and not any(job.budget.step_limit for job in later)
    seeds = [job for job in evaluator.submitted if job.id == 1 or job.test]
    assert not any(job.pause for job in seeds)
    summary = queries.summary(store, "test")
    assert summary.progress == shown, "the database's sums say what the fold says"
    assert summary.line.evaluated == shown.trained + shown.finals_done
    assert len(evaluations(url)) == 90 + sum(shown.went_on) + shown.finals_done


def test_the_record_of_a_candidate_is_that_of_its_last_stage(store: Store, url: str) -> None:
    shown, _ = run(store)
    counted = dict(ask(url, "SELECT kind, count(*) FROM evaluations GROUP BY kind"))
    assert (counted["band 1"], counted["band 2"]) == shown.went_on
    assert counted["search"] == 90
    assert shown.best is not None
    best = queries.top(store, "test", 1)[0]
    assert (best["id"], best["fitness"]) == (shown.best.id, shown.best.fitness)
    by_outcome = Counter(record["outcome"] for record in queries.records(store, "test"))
    assert by_outcome["crashed"] and by_outcome["diverged"]
    paused = [r for r in queries.records(store, "test") if str(r["reason"]).startswith("paused")]
    assert len(paused) == sum(shown.stopped_at), "duplicates do not say it"
    assert not check(url).findings
    made = replay(store, "test")
    assert made.difference is None and made.candidates == 90


@on_sqlite
def test_a_candidate_that_goes_on_stands_in_the_population_once(store: Store) -> None:
    run(store, candidates=80, population=100)
    config = make_config(candidates=80, population=100, budget=BUDGET)
    campaign = store.campaign("test")
    state = fold(config.search, store.events(campaign.id))
    members = Counter(member.id for member in state.population)
    assert set(members) - {1} and max(members[id] for id in members if id != 1) == 1
    for member in state.population:
        assert member.fitness == state.results[member.id].fitness
    assert progress(state).phase == "done"


class Dying(InstantEvaluator):
    """The process ends, as by SIGKILL, after some outcomes: what came back last is lost."""

    def __init__(
        self, capacity: int, after: int, outcome: Callable[[Job], Outcome] = pausing
    ) -> None:
        super().__init__(capacity, outcome)
        self.left = after

    def wait(self, timeout_s: float) -> list[Report]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().wait(timeout_s)


@on_sqlite
def test_whoever_goes_on_after_an_interruption_is_where_nobody_interrupted(
    store: Store, url: str, tmp_path: Path
) -> None:
    campaign = launch(store, **SETTINGS)
    for after in (20, 35, 3, 30):
        with pytest.raises(KeyboardInterrupt):
            Controller(store, campaign, Dying(1, after)).run()
        status = queries.summary(store, "test").progress
        state = fold(make_config(**SETTINGS).search, store.events(campaign.id))
        assert status.paused == len(state.rungs) and status == progress(state)
    assert status.paused > 20
    Controller(store, campaign, InstantEvaluator(1, pausing)).run()
    other = f"sqlite:///{tmp_path}/other.db"
    with Store.open(other) as whole:
        run(whole)
    assert rows(url) == rows(other)


@on_sqlite
def test_checkpoints_go_when_they_are_of_no_use_any_more(tmp_path: Path, store: Store) -> None:
    config = make_config(**SETTINGS).model_copy(update={"weights": str(tmp_path / "weights")})
    campaign = store.create_campaign("test", config.model_dump_json(), 1)
    folder = tmp_path / "weights" / "test" / "paused"
    folder.mkdir(parents=True)

    def kept(job: Job) -> Outcome:
        """What a worker does that dies before it removes anything."""
        if job.test:
            assert not folder.exists()
        if job.pause is not None:
            assert Path(job.pause.file) == folder / f"{job.id}.npz"
            assert job.pause.limit_mb == config.workers.checkpoints_mb
            Path(job.pause.file).touch()
        return pausing(job)

    with pytest.raises(KeyboardInterrupt):
        Controller(store, campaign, Dying(2, 80, kept)).run()
    state = fold(config.search, store.events(campaign.id))
    there = {int(file.stem) for file in folder.iterdir()}
    waiting = {id for id in state.results if id in state.rungs}
    assert waiting <= there and len(there - waiting) <= 3, "those that the dead one had in hand"
    Controller(store, campaign, InstantEvaluator(2, kept)).run()
    assert not folder.parent.exists()


def test_nothing_goes_with_the_checkpoints_that_is_none(tmp_path: Path) -> None:
    """Which folder it is, a database says, which may be somebody else's."""
    paused = tmp_path / "paused"
    paused.mkdir()
    for name in ("7.npz", "8.draft", "letters.txt", "model.npz"):
        (paused / name).touch()
    discard(tmp_path)
    assert sorted(file.name for file in paused.iterdir()) == ["letters.txt", "model.npz"]


@on_sqlite
def test_who_is_paused_was_not_stopped_until_the_search_has_ended(store: Store) -> None:
    campaign = launch(store, **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        Controller(store, campaign, Dying(1, 40)).run()
    for paused, stopped in (True, False), (False, True):
        view = read(store, "test")
        progress = view.summary.progress
        kinds = Counter(view.kind_of(run) for run in view.runs)
        assert kinds["paused at a hurdle"] == progress.paused
        assert kinds["stopped at a hurdle"] == sum(progress.stopped_at)
        assert bool(progress.paused) == paused and any(progress.stopped_at) == stopped
        assert ("paused at hurdles" in dict(_tiles(view))) == paused
        Controller(store, campaign, InstantEvaluator(1, pausing)).run()


@on_sqlite
def test_other_tools_are_told_of_a_run_when_it_has_ended(store: Store) -> None:
    """They keep what they were told once."""
    campaign = launch(store, **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        Controller(store, campaign, Dying(1, 80)).run()
    before = {run.key: run for run in tracked_runs(store, "test")}
    Controller(store, campaign, InstantEvaluator(1, pausing)).run()
    after = {run.key: run for run in tracked_runs(store, "test")}
    assert 1 < len(before) < len(after) and before == {key: after[key] for key in before}


@on_sqlite
def test_with_hurdles_of_nobody_nothing_is_paused(store: Store) -> None:
    evaluator = InstantEvaluator(1, pausing)
    budget = BudgetSpec(unit="steps", base=25.0, rule="promote")
    shown = Controller(store, launch(store, candidates=10, budget=budget), evaluator).run()
    assert shown.phase == "done" and not any(job.pause for job in evaluator.submitted)


@on_sqlite
def test_somebody_elses_training_cannot_be_paused(store: Store) -> None:
    with pytest.raises(UsageError, match="set it to top"):
        Asking(store, launch(store, **SETTINGS))
