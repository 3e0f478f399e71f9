"""What finalists' experts are for, in `show` and in the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from search.campaign import queries
from search.campaign.controller import Controller
from search.report.findings import findings
from search.report.page import render
from search.storage.models import Evaluation
from search.storage.store import Store
from tests.cli.command import primevo
from tests.report.synthetic import HOSTILE
from tests.search.instant import InstantEvaluator, launch


def recorded(text: str) -> list[dict[str, Any]]:
    """Two routed calls of 12 experts, of which the second has no token for two."""
    first = [
        {"expert": id, "load": 1 / 12, "often": [[text, 0.5]], "lifted": [["b", 2.5]]}
        for id in range(12)
    ]
    second = [dict(each, load=0.1) for each in first[:10]]
    shared = {"experts": 12, "tokens": 640}
    return [
        shared | {"layer": 1, "entropy": 2.485, "dead": 0, "agreement": None, "fullest": first},
        shared | {"layer": 2, "entropy": 2.303, "dead": 2, "agreement": 0.25, "fullest": second},
    ]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    with Store.open("sqlite:///primevo.db") as opened:
        Controller(opened, launch(opened, candidates=12), InstantEvaluator()).run()
        yield opened


def put(store: Store, calls: list[dict[str, Any]]) -> int:
    """Records the calls in the winner's final runs, and gives its candidate."""
    chosen = findings(queries.summary(store, "test")).chosen
    assert chosen is not None
    with store.writing() as connection:
        own = (Evaluation.candidate_id == chosen, Evaluation.kind == "final")
        connection.execute(update(Evaluation).where(*own).values(experts=calls))
    return chosen


def test_show_tells_of_each_routed_call(store: Store) -> None:
    id = put(store, recorded("\\n"))
    text = primevo("show", "test", str(id)).stdout
    assert "layer 1: 12 experts, entropy of the load 2.48 of 2.48 nats, 0 without a token" in text
    assert "2 without a token; agreement with the call before 0.25" in text
    assert '"\\n" 50%' in text and '"b" 2.5x' in text
    assert "and 4 more with smaller loads" in text and "and 2 more with smaller loads" in text
    shown = json.loads(primevo("show", "test", str(id), "-o", "json").stdout)
    assert shown["experts"]["calls"] == recorded("\\n")
    other = json.loads(primevo("show", "test", "1", "-o", "json").stdout)
    assert other["experts"] is None


def test_the_report_draws_loads_and_lists_tokens(store: Store) -> None:
    assert "loads" not in render(store, "test").partition('id="routing"')[2]
    id = put(store, recorded(HOSTILE))
    page = render(store, "test")
    section = page.partition('id="routing"')[2]
    assert f"The experts of candidate {id}" in section
    assert "call 2, layer 2, agreement 0.25" in section
    assert section.count("<details><summary>layer") == 2
    assert HOSTILE not in page
