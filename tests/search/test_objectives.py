"""Campaigns with more than one objective: who breeds, who is on the front, who is trained again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pydantic import ValidationError

from search.campaign import queries
from search.campaign.controller import Controller
from search.campaign.history import fold
from search.campaign.ranking import choice, front, point_of, standings
from search.config.schema import CampaignConfig, FinalSpec
from search.errors import UsageError
from search.report.findings import findings
from search.storage.events import Ended
from search.storage.store import Store
from tests.search.instant import InstantEvaluator, launch, make_config, outcome_of
from workers.spec.outcome import Job, Outcome

GOALS = ("val_loss", "step_time_s")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(f"sqlite:///{tmp_path}/primevo.db")


def priced(job: Job) -> Outcome:
    """Like `outcome_of`, with a step time and sizes that depend on the program."""
    outcome = outcome_of(job)
    rng = Random(job.dna)
    sizes = {"params": rng.randrange(10**5), "step_time_s": rng.uniform(0.01, 0.02)}
    used = {"activation_bytes": rng.randrange(10**6), "experts_used": rng.random()}
    return replace(outcome, **sizes, metrics=used)


def ended(id: int, loss: float, seconds: float | None, passed: int = 2) -> Ended:
    return Ended(
        id, id, "search", id, "completed", loss, loss, None, None, passed, (loss,), seconds,
        (loss, seconds),
    )  # fmt: skip


def test_a_campaign_with_several_objectives_runs_resumes_and_reports(store: Store) -> None:
    settings: dict[str, Any] = {"candidates": 80, "objectives": GOALS, "final": FinalSpec(top=3)}
    campaign = launch(store, **settings)
    controller = Controller(store, campaign, InstantEvaluator(3, priced))
    shown = controller.run()
    state = controller._state
    again = fold(make_config(**settings).search, store.events(campaign.id, GOALS))
    assert again.results == state.results and again.population == state.population
    assert again.ranking == state.ranking and again.finalists == state.finalists
    assert [again.parent(Random(n)) for n in range(20)] == [
        state.parent(Random(n)) for n in range(20)
    ]
    assert shown.best is not None and shown.best.id in state.finalists
    summary = queries.summary(store, "test")
    assert all(set(row.goals) == set(GOALS) for row in summary.final)
    assert all(0.01 <= (row.goals["step_time_s"] or 0) <= 0.02 for row in summary.final)
    assert "loss alone; the campaign also weighed step_time_s" in findings(summary).sentence


def test_the_front_is_what_no_other_beats_of_those_that_came_farthest(store: Store) -> None:
    campaign = launch(store, candidates=200, objectives=GOALS, final=FinalSpec(top=0))
    controller = Controller(store, campaign, InstantEvaluator(2, priced))
    controller.run()
    goals, records = queries.front(store, "test")
    assert goals == GOALS and len(records) > 1
    full = [
        end for end in controller._state.results.values()
        if end.fitness is not None and end.hurdles_passed == 2
    ]  # fmt: skip
    points = {(end.val_loss, end.step_time_s) for end in full}
    expected = {
        point for point in points
        if not any(o[0] <= point[0] and o[1] <= point[1] and o != point for o in points)
    }  # fmt: skip
    assert {(row["val_loss"], row["step_time_s"]) for row in records} == expected
    assert [row["val_loss"] for row in records] == sorted(row["val_loss"] for row in records)
    more, wider = queries.front(store, "test", by="activation_bytes")
    assert more == (*GOALS, "activation_bytes") and len(wider) >= len(records)


def test_any_campaign_has_a_front_with_one_more_objective(store: Store) -> None:
    Controller(store, launch(store, candidates=40), InstantEvaluator(1, priced)).run()
    assert queries.front(store, "test", by="params")[0] == ("val_loss", "params")
    with pytest.raises(UsageError, match=r"one objective, val_loss; .* --by step_time_s"):
        queries.front(store, "test")
    with pytest.raises(UsageError, match="--by: unknown objective 'step_time'; did you mean 'step"):
        queries.front(store, "test", by="step_time")


def test_training_further_comes_before_every_objective() -> None:
    ends = [ended(1, 2.0, 0.5), ended(2, 1.9, 0.9), ended(3, 1.0, 0.1, passed=1),
            ended(4, 3.0, 0.01, passed=0)]  # fmt: skip
    found = standings(ends, GOALS)
    assert [found[id].rank for id in (1, 2, 3, 4)] == [0, 0, 1, 2]
    assert [end.id for end in front(ends, GOALS)] == [2, 1]


def test_what_was_not_measured_is_worst_and_more_is_better_where_it_is() -> None:
    assert point_of(ended(1, 2.0, None), GOALS) == (2.0, float("inf"))
    assert point_of(ended(1, 2.0, 0.5), ("val_loss", "experts_used")) == (2.0, -0.5)


def test_the_final_phase_takes_the_best_the_knee_and_the_ends() -> None:
    points = {1: (2.0, 1.0), 2: (1.0, 9.0), 3: (1.2, 2.0), 4: (5.0, 0.1), 5: (1.1, 6.0),
              6: (1.3, 2.5), 7: (0.9, 9.5)}  # fmt: skip
    results = {id: ended(id, *point) for id, point in points.items()}
    results[8] = ended(8, 0.5, 20.0, passed=0)

    def chosen(top: int) -> tuple[int, ...]:
        spec = make_config(objectives=GOALS, final=FinalSpec(top=top)).search
        return choice(spec, results, results)

    assert chosen(1) == (8,), "the lowest loss of all, however it was reached"
    assert chosen(4) == (8, 3, 7, 4)
    assert chosen(20)[4:6] in ((2, 5), (5, 2)) and chosen(20)[-1] == 6
    assert 1 not in chosen(20) and len(chosen(20)) == 7


def test_copies_of_one_seed_program_breed_at_first(store: Store) -> None:
    state = fold(make_config(objectives=GOALS).search, [])
    assert len(state.population) == 0
    Controller(store, launch(store, candidates=2, objectives=GOALS), InstantEvaluator()).run()
    state = fold(make_config(objectives=GOALS).search, list(store.events(1, GOALS))[:1])
    for event in store.events(1, GOALS):
        if isinstance(event, Ended) and event.id == 1:
            state.apply(event)
    assert state.parent(Random(0)).id == 1


def test_fast_programs_breed_where_speed_is_an_objective(store: Store) -> None:
    """On average over four campaigns each way: step times are random, so one may go astray."""
    means = {}
    for name, goals in (("loss", ("val_loss",)), ("both", GOALS)):
        settings = {"candidates": 150, "objectives": goals, "final": FinalSpec(top=0)}
        times: list[float] = []
        for seed in range(4):
            campaign = launch(store, f"{name}-{seed}", seed, **settings)
            controller = Controller(store, campaign, InstantEvaluator(1, priced))
            controller.run()
            state = controller._state
            parents = [state.parent(Random(n)).id for n in range(100)]
            times += [state.results[id].step_time_s or 0 for id in parents]
        means[name] = sum(times) / len(times)
    assert means["both"] < means["loss"] - 0.001


@pytest.mark.parametrize(
    ("objectives", "told"),
    [
        (["val_los"], "unknown objective 'val_los'; did you mean 'val_loss'? allowed: val_loss, "),
        (["val_loss", "test_loss"], "unknown objective 'test_loss'"),
        (["val_loss", "steps"], "unknown objective 'steps'"),
        (["val_loss", "params", "val_loss"], "val_loss is named twice"),
        ([], "at least 1 item"),
    ],
)
def test_objectives_that_cannot_be_are_refused(objectives: list[str], told: str) -> None:
    data = json.loads(make_config().model_dump_json())
    data["search"]["objectives"] = objectives
    with pytest.raises(ValidationError, match=told.replace("?", r"\?")):
        CampaignConfig.model_validate_json(json.dumps(data))
