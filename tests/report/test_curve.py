"""`primevo curve`: drawn for people, printed for programs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from search.campaign import queries as campaign_queries
from search.config.plugins import stored_config
from search.report import curvecharts, queries, terminal
from search.report.data import Quality
from search.report.queries import Point
from search.storage.store import Store
from tests.cli.command import data, primevo, refusal

POINTS = [Point(50, 800, 1.0, 3.0), Point(100, 1600, 2.0, None), Point(150, 2400, 3.0, 2.5)]


def test_the_seed_program_and_the_best_are_drawn(folder: Path) -> None:
    best = data("top", "small", "-n", 1)[0]["id"]
    drawn = primevo("curve", "small").stdout
    assert drawn.isascii()
    assert "oo seed program 1" in drawn
    assert f"xx candidate {best}" in drawn
    assert drawn.count("o") > 20


@pytest.mark.parametrize("columns", [50, 120])
def test_columns_are_honoured(folder: Path, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    widest = max(map(len, primevo("curve", "small", 4, 5, 6).stdout.splitlines()))
    assert columns - 12 < widest <= columns


def test_numbers_are_those_of_the_database(folder: Path) -> None:
    records = data("curve", "small", 1, 2)
    printed = primevo("curve", "small", 1, 2, "-o", "csv").stdout
    rows = list(csv.DictReader(printed.splitlines()))
    assert [[json.loads(value) for value in row.values()] for row in rows] == [
        list(record.values()) for record in records
    ]
    first, last = records[:2]
    assert list(first) == ["id", "steps", "tokens", "train_seconds", "val_loss"]
    assert list(last.values())[:4] == [1, 150, 2400, 3.0]
    assert last["val_loss"] == data("lineage", "small", 1)[0]["val_loss"]
    assert "train_seconds" in primevo("curve", "small", "-o", "table").stdout


def test_losses_of_training(folder: Path) -> None:
    plain, records = data("curve", "small", 1), data("curve", "small", 1, "--training")
    assert [record["steps"] for record in records] == [25, 50, 75, 100, 125, 150]
    scored = [record for record in records if record["val_loss"] is not None]
    assert [{**record, "train_loss": 0} for record in plain] == [
        {**record, "train_loss": 0} for record in scored
    ]
    losses = [record["train_loss"] for record in records]
    assert losses == sorted(losses, reverse=True) and None not in losses
    assert (records[2]["tokens"], records[2]["train_seconds"]) == (1200, 1.5)
    assert "train_loss" not in plain[0]
    drawn = primevo("curve", "small", "--training").stdout
    assert "seed program 1, training" in drawn
    assert "training" not in primevo("curve", "small").stdout.replace("--training", "")
    assert "train_loss" in primevo("curve", "small", "--training", "-o", "table").stdout


def test_a_chart_has_losses_of_training_beside_the_scores(folder: Path) -> None:
    with Store.open("sqlite:///primevo.db") as store:
        found = queries.curves(store, "small", [1])
    figure = curvecharts.curves(found, Quality("nats", 1.0), {1: "seed"})
    scores, losses = figure.data
    assert list(losses.x) == [25, 50, 75, 100, 125, 150]
    assert losses.legendgroup == scores.legendgroup and not losses.showlegend


def test_what_has_no_curve_is_told(folder: Path) -> None:
    with Store.open("sqlite:///primevo.db") as store:
        failed = next(run.id for run in queries.runs(store, "small") if not run.losses)
    told = primevo("curve", "small", failed)
    assert f"candidate {failed} of small has no scored point" in told.stderr
    assert "seed program" in told.stdout
    assert "has no candidate 121" in refusal(3, "curve", "small", 121)


def test_curves_without_a_finite_score_are_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = [queries.Curve(1, "search", 0, (Point(50, 800, 1.0, None),))]
    monkeypatch.setattr(queries, "curves", lambda *_: lost)
    assert "campaign 'small' has no curve to draw yet" in refusal(1, "curve", "small", 1)


@pytest.mark.parametrize(("axis", "last"), [("steps", 150), ("tokens", 2400), ("seconds", 3)])
def test_the_axis_can_be_chosen(axis: terminal.Axis, last: int) -> None:
    drawn = terminal.draw({"one": POINTS, "two": POINTS[:1]}, axis, 80, 24, plain=True)
    assert f"by {axis}" in drawn
    assert [place for place, _ in terminal._places(POINTS, axis)][-1] == last
    assert len(drawn.splitlines()) <= 24


def test_a_terminal_has_colours_and_blocks() -> None:
    drawn = terminal.draw({"one": POINTS}, "steps", 80, 24, plain=False)
    assert "\x1b[" in drawn
    assert "┌" in drawn


def test_final_runs_have_curves_as_candidates_do(played: Store) -> None:
    """They are scored where those of the search are, and stopped nowhere."""
    spec = stored_config(played.campaign("test").config, "test").search
    finalists = [row.id for row in campaign_queries.summary(played, "test").final]
    found = queries.curves(played, "test", finalists, ("final",))
    assert len(found) == len(finalists) * spec.final.seeds
    places = [*spec.budget.hurdles_at, spec.budget.full]
    for curve in found:
        assert [point.steps for point in curve.points] == places


def test_final_runs_can_be_drawn_and_printed(folder: Path) -> None:
    best = data("top", "small", "-n", 1)[0]["id"]
    drawn = primevo("curve", "small", "--final").stdout
    assert f"candidate {best}, final run 3" in drawn and "seed program 1, final run 1" in drawn
    records = data("curve", "small", "--final")
    finals = [record for record in records if record["kind"] == "final"]
    assert {(record["id"], record["seed"]) for record in finals} == {
        (id, 10**6 + seed) for id in (1, best) for seed in range(3)
    }
    assert list(finals[0])[:4] == ["id", "kind", "seed", "steps"]
