"""Programs from Python. Workers are an instant evaluator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import primevo
from primevo import PrimevoError
from search.errors import UsageError
from search.report import drawing
from tests.api.test_campaign import CONFIG_DATA
from tests.cli.command import data
from tests.cli.instant import InstantPool
from workers.spec.outcome import Outcome

pytestmark = pytest.mark.usefixtures("here")


def _fails(source: str) -> str:
    raise PrimevoError("no layout")


def test_a_named_program_runs_in_the_blocks_of_the_config() -> None:
    config = primevo.load_config(
        {**CONFIG_DATA, "search": {**CONFIG_DATA["search"], "every": 2},
         "task": {"model": {"d_model": 32, "layers": 2}}}
    )  # fmt: skip
    routed = primevo.load_program("switch", 32)
    named = primevo.evaluate("switch", config, seeds=1, progress=False)
    given = primevo.evaluate(routed, config, seeds=1, progress=False)
    assert (named.program.dna.every, given.program.dna.every) == (2, 1)


def test_a_program_by_name_text_and_file(here: Path) -> None:
    named = primevo.load_program("primer_ez", 32)
    (here / "mine.dna").write_text(named.genome)
    assert (
        named.hash
        == primevo.load_program(named.genome, 32).hash
        == primevo.load_program("mine.dna", 32).hash
        == primevo.load_program(here / "mine.dna", 32).hash
    )
    assert primevo.load_program("mine.dna").name == "mine"
    (here / "left").mkdir()
    (here / "left" / "card.json").write_text(json.dumps({"text": named.genome}))
    exported = primevo.load_program(here / "left")
    assert (exported.name, exported.hash) == ("left", named.hash)
    with pytest.raises(UsageError, match="unknown seed program 'primer_eez'"):
        primevo.load_program("primer_eez")
    with pytest.raises(UsageError, match="program:1"):
        primevo.load_program("nonsense\nmore")


def test_its_cost_and_graph(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, config = primevo.load_program("transformer", 32), primevo.load_config("small.yaml")
    assert program.cost(config)["parameters"] > 1000
    assert program.graph.dot().startswith("digraph {")
    shown = program.graph._repr_mimebundle_()
    assert shown["image/svg+xml"].startswith("<svg") and "36 nodes" in shown["text/plain"]
    child = primevo.mutate(program, 1)
    assert "transformer" in child.graph.against(program).title
    assert child.graph.against(program).svg() != child.graph.svg()
    monkeypatch.setattr(drawing, "layout", _fails)
    assert "digraph" in program.graph._repr_mimebundle_()["text/plain"]


def test_a_mutation_is_typed_new_and_repeatable() -> None:
    parent = primevo.load_program("transformer")
    children = [primevo.mutate(parent, seed) for seed in range(20)]
    assert all(child.hash != parent.hash for child in children)
    assert len({child.hash for child in children}) > 10
    assert primevo.mutate("transformer", 3).hash == children[3].hash
    assert primevo.mutate(parent, 1, {"delete": 1.0}).name == "transformer+delete"
    with pytest.raises(UsageError, match="unknown mutation 'delet'"):
        primevo.mutate(parent, 1, {"delet": 1.0})


def test_seeds_are_listed() -> None:
    rows = primevo.seeds()
    assert "transformer" in [row["name"] for row in rows]
    assert all(primevo.load_program(row["name"]).hash == row["hash"] for row in rows)


def test_evaluate_gives_what_the_command_gives() -> None:
    found = primevo.evaluate("transformer", "small.yaml", seeds=2, progress=False)
    told = data(
        "evaluate", "--seed-program", "transformer", "--config", "small.yaml", "--seeds", "2"
    )
    assert list(found.values()) == [run["val_loss"] for run in told["runs"]]
    interval = found.interval("test_loss")
    assert interval is not None
    assert interval.centre == pytest.approx(told["test_loss"]["mean"])
    assert len(found.to_pandas()) == 2 and "val_loss" in found._repr_html_()


def test_evaluate_tells_why_nothing_completes(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: InstantPool, timeout_s: float) -> list[Any]:
        self._outcome = lambda job: Outcome("invalid", "no such thing")
        return super(InstantPool, self).wait(timeout_s)

    monkeypatch.setattr(InstantPool, "wait", failing)
    with pytest.raises(PrimevoError, match="no run of transformer completed: no such thing"):
        primevo.evaluate("transformer", "small.yaml", progress=False)
