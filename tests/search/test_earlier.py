"""Configs of campaigns that earlier versions launched: they go on under their own rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from search.campaign.controller import Controller
from search.config.plugins import stored_config
from search.config.schema import BudgetSpec, LimitsSpec
from search.storage.store import Store
from tests.search.instant import InstantEvaluator, make_config

KEYS = ("limits.step_time_max", "budget.rule", "budget.eta", "objectives")


def earlier(**search: Any) -> str:
    """A config as it was stored before the keys were there."""
    data = json.loads(make_config(**search).model_dump_json())
    for key in KEYS:
        *path, last = key.split(".")
        place = data["search"]
        for name in path:
            place = place[name]
        del place[last]
    return json.dumps(data)


def test_what_an_earlier_version_did_is_done_again() -> None:
    then = stored_config(earlier(), "old").search
    now = stored_config(make_config().model_dump_json(), "new").search
    assert (then.limits.step_time_max, now.limits.step_time_max) == (None, 3.0)
    assert (then.budget.rule, now.budget.rule) == ("median", "top")
    assert then.budget.hurdles_at == now.budget.hurdles_at and then.budget.full == now.budget.full
    assert then.goals == now.goals == ()


@pytest.mark.parametrize("text", ["{}", "[]", "3", '{"search": 3}', '{"search": {"budget": []}}'])
def test_what_is_no_config_is_told_as_before(text: str) -> None:
    with pytest.raises(Exception, match="stored config cannot be read"):
        stored_config(text, "old")


def test_such_a_campaign_goes_on_by_medians_without_a_limit_of_time(tmp_path: Path) -> None:
    said = make_config(
        budget=BudgetSpec(unit="steps", base=25.0, hurdles=2, rule="median"),
        limits=LimitsSpec(step_time_max=None),
    ).model_dump_json()
    jobs = {}
    for name, text in (("old", earlier()), ("said", said)):
        with Store.open(f"sqlite:///{tmp_path}/{name}.db") as store:
            evaluator = InstantEvaluator()
            Controller(store, store.create_campaign("test", text, 1), evaluator).run()
        jobs[name] = [(job.id, job.dna, job.budget) for job in evaluator.submitted]
    assert jobs["old"] == jobs["said"]
    assert all(budget.step_limit is None for _, _, budget in jobs["old"])
