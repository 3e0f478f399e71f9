"""A config's problems come all at once, those between keys with those of single keys."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.config.file import load
from search.errors import ConfigError

GOOD: dict[str, Any] = {
    "task": {"model": {"d_model": 32, "layers": 1}, "training": {"objective": "next_token"}},
    "search": {
        "seeds": ["transformer", "switch"], "population": 8, "tournament": 3, "candidates": 10,
        "budget": {"unit": "steps", "base": 20, "rule": "median"},
        "limits": {"parameters_min": 0.5},
    },
}  # fmt: skip

MISTAKES: dict[str, tuple[str, object, str]] = {
    "a clash of sizes": ("search.tournament", 30, "tournament 30 is larger than population 8"),
    "a clash of limits": ("search.limits.parameters_min", 5, "parameters_min 5.0 is above"),
    "a clash of the budget": ("search.budget.base", 2.5, "whole number of steps"),
    "a clash with a number": ("search.candidates", 1, "candidates 1 is below the 2 seed programs"),
    "a clash of options": ("task.data", {"options": {"a": 1}}, "unknown option of corpus 'sotu'"),
    "a clash of two parts": ("workers", {"ahead": 2}, "backend tensorflow cannot train what"),
    "a clash of rules": ("search.budget.eta", 3, "a median lets half go on, and eta is 3"),
    "a wrong type": ("seed", "x", "valid integer"),
    "a wrong item": ("plugins", [3], "plugins[0]"),
    "a wrong choice": ("task.optimizer", {"name": "sgd"}, "unknown value 'sgd'"),
    "an unknown key": ("search.final", {"tops": 1}, "did you mean 'top'?"),
    "a seed that no block runs": ("search.every", 4, "no block would run the seed program"),
    "a bound": ("task.training.batch_size", 0, "greater than or equal to 1"),
}
"""Each at a key that no other one depends on."""


def changed(*names: str) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(yaml.safe_dump(GOOD))
    for name in names:
        path, value, _ = MISTAKES[name]
        *above, last = path.split(".")
        place = data
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return data


def told(folder: Path, data: dict[str, Any]) -> list[str]:
    (folder / "c.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError) as caught:
        load(folder / "c.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_without_a_mistake_it_loads(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(GOOD))
    assert load(tmp_path / "c.yaml").search.tournament == 3


@pytest.mark.parametrize("names", itertools.combinations(MISTAKES, 2), ids=" and ".join)
def test_two_mistakes_are_two_problems(tmp_path: Path, names: tuple[str, str]) -> None:
    found = told(tmp_path, changed(*names))
    assert len(found) == 2, found
    for name in names:
        assert sum(MISTAKES[name][2] in problem for problem in found) == 1, found


def test_all_of_them_at_once(tmp_path: Path) -> None:
    found = told(tmp_path, changed(*MISTAKES))
    assert len(found) == len(MISTAKES), found


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("population", "x"), ("population", None), ("population", [1]), ("tournament", "x"),
    ],
)  # fmt: skip
def test_what_is_wrong_clashes_with_nothing(tmp_path: Path, path: str, value: object) -> None:
    """A tournament of 200 would be larger than the default population; nobody asked for that."""
    data = changed()
    data["search"] |= {"tournament": 200, "population": 300, "candidates": 400} | {path: value}
    (found,) = told(tmp_path, data)
    assert f"search.{path}" in found


def test_a_seed_that_is_wrong_is_told_once(tmp_path: Path) -> None:
    """And the others are still tried in the task."""
    data = changed("a seed that no block runs")
    data["search"]["seeds"][0] = "transfomer"
    fit, name = told(tmp_path, data)
    assert "did you mean 'transformer'?" in name and "no block would run" in fit


@pytest.mark.parametrize("search", [None, 3, [], "x", {}, {"budget": 3}, {"candidates": "x"}])
def test_a_search_that_is_hardly_there(tmp_path: Path, search: object) -> None:
    found = told(tmp_path, {"search": search, "sed": 1, "task": {"model": {"layers": 0}}})
    assert any("did you mean 'seed'?" in problem for problem in found)
    assert any("task.model.layers" in problem for problem in found)
    assert any("search" in problem for problem in found)
