"""`primevo mutations`: what the report draws, as a table, over one campaign or several."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import fmean

import pytest

from search.report import queries
from search.storage.store import Store
from tests.cli.command import data, refusal


def test_gains_are_those_of_children_over_their_parents(folder: Path) -> None:
    """Reckoned again from the scored points, in bits per byte: 1.5 times the losses there."""
    with Store.open("sqlite:///primevo.db") as store:
        lines = queries.runs(store, "small")
    points: defaultdict[int, dict[int, float]] = defaultdict(dict)
    for point in data("curve", "small", *(n.id for n in lines if n.fitness is not None)):
        points[point["id"]][point["steps"]] = point["val_loss"]
    gains: defaultdict[str, list[float]] = defaultdict(list)
    for line in lines:
        parent = points[line.parent_id or 0]
        shared = points[line.id].keys() & parent.keys()
        if shared and line.duplicate_of is None:
            gain = 1.5 * (parent[max(shared)] - points[line.id][max(shared)])
            gains[line.mutation].append(gain)
    rows = {row["mutation"]: row for row in data("mutations", "small")}
    assert rows.keys() == gains.keys()
    for mutation, expected in gains.items():
        row = rows[mutation]
        assert row["compared"] == len(expected) > 2
        assert row["better"] == sum(gain > 0 for gain in expected)
        assert row["gain"] == pytest.approx(fmean(expected))
        assert row["gain_low"] < row["gain"] < row["gain_high"]
        assert row["best_gain"] == pytest.approx(max(expected))
        assert row["unit"] == "bits per byte"


def test_campaigns_are_counted_together(folder: Path) -> None:
    once, twice = data("mutations", "small"), data("mutations", "small", "small")
    for one, two in zip(once, twice, strict=True):
        assert two["children"] == 2 * one["children"]
        assert two["gain"] == pytest.approx(one["gain"])
        assert two["gain_high"] < one["gain_high"]


def test_an_unknown_campaign_is_named(folder: Path) -> None:
    assert "no campaign 'large'" in refusal(3, "mutations", "small", "large")
