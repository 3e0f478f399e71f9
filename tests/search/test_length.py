"""Campaigns that end at another number of candidates than their config said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from search.campaign.controller import Controller
from search.campaign.integrity import check
from search.campaign.length import resize
from search.campaign.progress import Progress
from search.campaign.replay import replay
from search.config.plugins import stored_config
from search.errors import UsageError
from search.storage.store import CampaignRow, Store
from tests.search.instant import InstantEvaluator, launch


def ticking(seconds: float) -> Callable[[], float]:
    """A clock that goes on by so much each time that it is asked."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += seconds
        return now

    return clock


def run(store: Store, campaign: CampaignRow, **settings: Any) -> Progress:
    return Controller(store, campaign, InstantEvaluator(capacity=3), **settings).run()


def test_a_search_ends_when_its_hours_are_up(store: Store, url: str) -> None:
    campaign = launch(store, candidates=100_000)
    shown = run(store, campaign, clock=ticking(60), hours=5)
    assert 10 < shown.recorded < 300
    assert (shown.phase, shown.candidates, shown.pending) == ("done", shown.recorded, 0)
    assert shown.finals_done == shown.finals_planned == 6
    row = store.campaign("test")
    assert row.finished_at is not None
    assert stored_config(row.config, "test").search.candidates == shown.recorded
    found = replay(store, "test")
    assert (found.candidates, found.difference) == (shown.recorded, None)
    assert not check(url).findings


def test_its_seed_programs_come_first(store: Store) -> None:
    shown = run(store, launch(store, candidates=100), hours=0)
    assert (shown.phase, shown.recorded) == ("done", 1)


def drained(store: Store, at: int) -> CampaignRow:
    """A campaign of 60 candidates, with at least `at` of them recorded."""
    campaign = launch(store)

    def show(progress: Progress, _: object) -> None:
        if progress.recorded >= at:
            controller.drain()

    controller = Controller(store, campaign, InstantEvaluator(), show, ticking(1))
    assert controller.run().phase == "search"
    return store.campaign("test")


@pytest.mark.parametrize("more", [0, 7, 70])
def test_a_drained_campaign_gets_another_number(store: Store, more: int) -> None:
    campaign = drained(store, 20)
    recorded = len(list(store.events(campaign.id))) // 2
    shown = run(store, resize(store, campaign, recorded + more))
    assert (shown.phase, shown.recorded, shown.finals_done) == ("done", recorded + more, 6)
    assert replay(store, "test").difference is None


def test_what_cannot_be(store: Store) -> None:
    campaign = drained(store, 20)
    with pytest.raises(UsageError, match=r"--candidates 3 is less than campaign 'test' has"):
        resize(store, campaign, 3)
    with store.holding(campaign), pytest.raises(UsageError, match="primevo stop test"):
        resize(store, campaign, 200)
    run(store, campaign)
    with pytest.raises(UsageError, match="has begun its final phase"):
        resize(store, store.campaign("test"), 200)
