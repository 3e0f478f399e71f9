"""What a campaign does about candidates whose steps are slow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from search.campaign import queries
from search.campaign.controller import Controller
from search.campaign.history import fold
from search.config.schema import LimitsSpec
from search.storage.store import Store
from tests.search.instant import InstantEvaluator, launch, make_config, outcome_of
from workers.spec.outcome import Job, Measurement, Outcome, StepLimit


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(f"sqlite:///{tmp_path}/primevo.db")


def third_is_slow(job: Job) -> Outcome:
    """Each third child is stopped for its step, after 16 steps with a very low loss."""
    if job.budget.step_limit is None or job.id % 3:
        return outcome_of(job)
    point = Measurement(16, 8192, 0.9, 0.001)
    return Outcome("too_slow", "its step takes 9 times", 0.001, 0.001, steps=16, curve=(point,))


def test_children_get_the_limit_of_the_first_seed_program_as_it_was_measured(store: Store) -> None:
    evaluator = InstantEvaluator(3)
    Controller(store, launch(store, seeds=("transformer", "primer")), evaluator).run()
    limits = {job.id: job.budget.step_limit for job in evaluator.submitted if not job.test}
    assert limits.pop(1) is None and limits.pop(2) is None
    assert set(limits.values()) == {StepLimit(0.01, 3.0)}
    finals = [job.budget.step_limit for job in evaluator.submitted if job.test]
    assert set(finals) == {None}
    assert {job.budget.time_limit_s for job in evaluator.submitted} == {3600.0}


def test_a_resumed_campaign_has_the_same_limit(store: Store) -> None:
    campaign = launch(store)
    first = Controller(store, campaign, InstantEvaluator())
    first.run()
    again = Controller(store, campaign, InstantEvaluator())
    again._begin()
    assert again._step_limit() == first._step_limit() == StepLimit(0.01, 3.0)


def test_the_limit_can_be_moved_or_switched_off(store: Store) -> None:
    for name, factor in (("five", 5.0), ("off", None)):
        evaluator = InstantEvaluator()
        campaign = launch(store, name, limits=LimitsSpec(step_time_max=factor), candidates=5)
        Controller(store, campaign, evaluator).run()
        expected = None if factor is None else StepLimit(0.01, factor)
        assert evaluator.submitted[4].budget.step_limit == expected


def test_workers_that_share_a_gpu_may_take_turns(store: Store) -> None:
    config = make_config(candidates=5).model_dump(mode="json")
    config["workers"]["gpus_per_worker"] = 0.25
    campaign = store.create_campaign("shared", json.dumps(config), 1)
    evaluator = InstantEvaluator()
    Controller(store, campaign, evaluator).run()
    assert evaluator.submitted[1].budget.step_limit == StepLimit(0.01, 12.0)


def test_slow_candidates_are_counted_and_take_part_in_nothing(store: Store) -> None:
    campaign = launch(store, candidates=60)
    controller = Controller(store, campaign, InstantEvaluator(1, third_is_slow))
    shown = controller.run()
    state = fold(make_config(candidates=60).search, store.events(campaign.id))
    slow = {id for id, end in state.results.items() if end.status == "too_slow"}
    assert 12 < len(slow) - shown.duplicates <= shown.outcomes["too_slow"] <= len(slow)
    assert not slow & {member.id for member in state.population}
    assert not slow & set(state.finalists) and shown.best is not None and shown.best.id not in slow
    bars = [bar.threshold for bar in state.hurdles.bars()]
    assert all(bar is not None and bar > 1 for bar in bars), "16 steps are no hurdle"
    record = queries.candidate(store, "test", min(slow))
    assert (record["fitness"], record["val_loss"]) == (None, 0.001)
    assert record["reason"] == "its step takes 9 times"
