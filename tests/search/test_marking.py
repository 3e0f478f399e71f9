"""The mutation that moves the mark of what is remembered."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from primitives import Graph, build, parse
from primitives.language.dna import DNA, verify
from primitives.language.text import render
from primitives.lowering.memory import memory_of
from primitives.lowering.rewrite import lowered
from primitives.ops.state import BLOCK
from primitives.programs.seeds import load_seed
from search.evolution.marking import unmarked
from search.evolution.mutation import DEFAULT_PROBABILITIES, MUTATIONS


def graph_of(dna: DNA) -> Graph:
    graph = build(dna)
    assert isinstance(graph, Graph)
    return graph


def marks(dna: DNA) -> list[str]:
    """The names of what a program's marks read."""
    nodes = graph_of(dna).nodes
    return [nodes[node.inputs[0]].name for node in nodes if node.op == "REMEMBER"]


@pytest.mark.parametrize("name", ["transformer", "switch"])
def test_a_program_is_given_one_mark_or_none(name: str) -> None:
    """Every child runs and computes the same; what it remembers is the state that is marked."""
    seed, rng = load_seed(name), random.Random(0)
    remembered: Counter[str] = Counter()
    child = seed
    for _ in range(150):
        child = verify(MUTATIONS["remember"].change(child, rng))
        assert parse(render(child)) == child
        assert unmarked(child) == unmarked(seed)
        found, nodes = marks(child), lowered(graph_of(child))
        chosen = nodes[memory_of(nodes)]
        assert chosen.type is BLOCK
        if found:
            assert chosen.op == "REMEMBER"
        else:
            assert chosen.name == "main.renormed" and graph_of(child).hash == graph_of(seed).hash
        remembered[found[-1] if found else ""] += 1
    assert {"", "x", "main.attended", "main.renormed", "main.out"} <= set(remembered)
    hashes = {graph_of(MUTATIONS["remember"].change(seed, rng)).hash for _ in range(150)}
    assert len(hashes) <= len(remembered), "one state, one hash"


def test_marks_are_drawn_by_no_other_mutation() -> None:
    seed = load_seed("switch")
    for name in set(MUTATIONS) - {"remember"}:
        for number in range(300):
            child = MUTATIONS[name].change(seed, random.Random(number))
            assert all(
                row.op != "REMEMBER" for each in child.subroutines for row in each.instructions
            )
    assert "remember" not in DEFAULT_PROBABILITIES


def test_an_ill_typed_program_stays_as_it_is() -> None:
    ill = parse(
        "dims d0=8 d1=16\nconstants c0=0.0\n\n"
        "main(x, y):\n  wide = CONV 1X1(x) dim=d1\n  out = ADD(x, wide)\n"
    )
    assert MUTATIONS["remember"].change(ill, random.Random(0)) is ill


def test_it_goes_with_an_objective_that_remembers() -> None:
    from search.config.schema import CampaignConfig

    def config(objective: str) -> CampaignConfig:
        return CampaignConfig.model_validate({
            "task": {"training": {"objective": objective}},
            "search": {"candidates": 5, "budget": {"unit": "steps", "base": 5},
                       "mutations": {"insert": 1, "remember": 1}},
        })  # fmt: skip

    assert config("trime").search.mutations["remember"] == 1
    with pytest.raises(ValueError, match=r"next_token has none; .* one of: trime, trime_long"):
        config("next_token")
