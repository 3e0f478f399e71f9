"""What final runs measured beside the loss, where a person looks: status, report, JSON."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from search.campaign import queries
from search.campaign.controller import Controller
from search.storage.store import Store
from tests.cli.command import data, primevo
from tests.search.instant import InstantEvaluator, launch, outcome_of
from workers.spec.outcome import Job, Outcome


def answered(job: Job) -> Outcome:
    outcome = outcome_of(job)
    if not job.test:
        return outcome
    share = 0.1 if job.seed % 2 else 0.3
    return replace(outcome, metrics={"test_ece": share, "transfer_bpb": 3.25})


def test_calibration_and_transfer_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRIMEVO_STORAGE", raising=False)
    monkeypatch.setenv("COLUMNS", "140")
    with Store.open("sqlite:///primevo.db") as store:
        campaign = launch(store, "mine", candidates=12, population=4, tournament=2)
        Controller(store, campaign, InstantEvaluator(2, answered)).run()
        rows = queries.summary(store, "mine").final
    completed = [row for row in rows if row.test_losses]
    assert completed and all(row.tested["transfer_bpb"] == 3.25 for row in completed)
    assert all(0.1 <= row.tested["test_ece"] <= 0.3 for row in completed)
    assert "test_brier" not in completed[0].tested
    printed = primevo("status", "mine").stdout
    assert "transfer bits/byte" in printed and "calibration error" in printed
    assert "Brier" not in printed
    told = data("status", "mine")["final"]
    assert told[0]["tested"] == completed[0].tested
    primevo("report", "mine", "--to", "page.html")
    assert "<th>transfer bits/byte</th>" in Path("page.html").read_text(encoding="utf-8")
