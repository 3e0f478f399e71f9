"""What finalists' experts are for, in `show` and in the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.campaign import queries
from search.campaign.controller import Controller
from search.report.findings import findings
from search.report.page import render
from search.storage.store import Store
from tests.cli.command import data, primevo
from tests.report.synthetic import HOSTILE
from tests.search.instant import InstantEvaluator, launch, outcome_of
from workers.spec.outcome import Job, Outcome


def recorded(text: str) -> tuple[dict[str, Any], ...]:
    """Two routed calls of 12 experts, of which the second has no token for two."""
    first = [
        {"expert": id, "load": 1 / 12, "often": [[text, 0.5]], "lifted": [["b", 2.5]]}
        for id in range(12)
    ]
    second = [dict(each, load=0.1) for each in first[:10]]
    shared = {"experts": 12, "tokens": 640}
    return (
        shared | {"layer": 1, "entropy": 2.485, "dead": 0, "agreement": None, "fullest": first},
        shared | {"layer": 2, "entropy": 2.303, "dead": 2, "agreement": 0.25, "fullest": second},
    )


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[Store, int]]:
    """Runs a campaign whose final runs record experts that get this token, none where it is empty;
    gives the store and the winner."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRIMEVO_STORAGE", raising=False)

    def played(text: str) -> tuple[Store, int]:
        def outcome(job: Job) -> Outcome:
            made = outcome_of(job)
            return replace(made, experts=recorded(text)) if job.test and text else made

        store = Store.open("sqlite:///primevo.db")
        Controller(store, launch(store, candidates=12), InstantEvaluator(outcome=outcome)).run()
        chosen = findings(queries.summary(store, "test")).chosen
        assert chosen is not None
        return store, chosen

    return played


def test_show_tells_of_each_routed_call(play: Callable[[str], tuple[Store, int]]) -> None:
    _, id = play("\\n")
    text = primevo("show", "test", id).stdout
    assert "layer 1: 12 experts, entropy of the load 2.48 of 2.48 nats, 0 without a token" in text
    assert "2 without a token; agreement with the call before 0.25" in text
    assert '"\\n" 50%' in text and '"b" 2.5x' in text
    assert "and 4 more with smaller loads" in text and "and 2 more with smaller loads" in text
    assert data("show", "test", id)["experts"]["calls"] == list(recorded("\\n"))
    searched = next(each for each in range(2, 13) if not _final(each))
    assert data("show", "test", searched)["experts"] is None


def _final(id: int) -> bool:
    with Store.open("sqlite:///primevo.db") as store:
        return id in {row.id for row in queries.summary(store, "test").final}


def test_the_report_draws_loads_and_lists_tokens(play: Callable[[str], tuple[Store, int]]) -> None:
    store, id = play(HOSTILE)
    page = render(store, "test")
    section = page.partition('id="routing"')[2]
    assert f"The experts of candidate {id}" in section
    assert "call 2, layer 2, agreement 0.25" in section
    assert section.count("<details><summary>layer") == 2
    assert HOSTILE not in page


def test_a_campaign_without_routed_calls_has_no_such_section(
    play: Callable[[str], tuple[Store, int]],
) -> None:
    store, _ = play("")
    assert 'id="routing"' not in render(store, "test")
