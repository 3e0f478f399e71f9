"""Several objectives on the command line: config, front, final table, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.cli import running
from tests.cli.command import data, primevo, refusal
from tests.cli.instant import InstantPool


def test_a_campaign_with_two_objectives(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "Pool", InstantPool)
    chosen = ("--set", "search.objectives=[val_loss, step_time_s]", "--name", "two")
    printed = primevo("launch", "small.yaml", *chosen).stdout
    assert "step_time_s" in printed.splitlines()[1] and "0.0100" in printed
    assert "primevo top two --pareto" in printed
    front = data("top", "two", "--pareto")
    assert front and front[0]["id"] == data("top", "two", "-n", "1")[0]["id"]
    header, *rows = primevo("top", "two", "--pareto").stdout.splitlines()
    assert "step_time_s" in header and str(front[0]["id"]) in rows[1]
    final = data("status", "two")["final"]
    assert {round(row["goals"]["step_time_s"], 6) for row in final} == {0.01}


def test_the_front_of_any_campaign(campaign: Path) -> None:
    assert "--by step_time_s" in refusal(2, "top", "small", "--pareto")
    front = data("top", "small", "--pareto", "--by", "params")
    assert [row["id"] for row in front] == [data("top", "small", "-n", "1")[0]["id"]]
    assert "did you mean 'params'" in refusal(2, "top", "small", "--pareto", "--by", "param")


def test_an_unknown_objective_is_one_error_with_its_line(empty: Path) -> None:
    config = empty / "small.yaml"
    config.write_text(config.read_text() + "  objectives: [val_loss, step_tim]\n")
    told = refusal(2, "validate", "small.yaml")
    assert "search.objectives[1]: unknown objective 'step_tim'; did you mean 'step_time_s'?" in told
    assert told.count("unknown objective") == 1 and "small.yaml:9" in told
