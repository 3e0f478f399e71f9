"""Bounds of what nodes make hold, and what they spare from being run has no part in a verdict."""

from __future__ import annotations

import numpy as np
import pytest

from primitives import build
from primitives.graph.build import Graph
from primitives.lowering import divergence as question
from primitives.lowering.bounds import _RULES, LARGEST_NORMAL
from primitives.lowering.divergence import BOUND, PROVEN, Scale, divergence
from primitives.lowering.numeric import _normals
from primitives.lowering.probe import Program, Sizes
from primitives.lowering.rewrite import lowered
from primitives.programs.seeds import load_seed, seed_names
from tests.reference.random_programs import programs


def graphs() -> list[Graph]:
    dense = [load_seed(name) for name in seed_names() if not load_seed(name).counts]
    made = [build(dna, bidirectional=True) for dna in [*dense, *programs(40, seed=11)]]
    return [graph for graph in made if isinstance(graph, Graph)]


def test_no_value_is_larger_than_its_bound() -> None:
    checked, ops = 0, set[str]()
    for graph in graphs():
        nodes = lowered(graph, rotary=True)
        with np.errstate(all="ignore"):
            for block in Program(nodes, Sizes(16, 12)).blocks(2):
                bounds = [0.0, *block.bounds(PROVEN)]
                if not all(bound <= BOUND for bound in bounds):
                    break
                for place, (node, bound) in enumerate(zip(nodes, bounds, strict=True)):
                    if place:
                        assert block.state(place).largest <= bound * 1.0001 + 1e-9, node
                        checked += 1
                        ops.add(node.op)
    assert checked > 1500 and len(ops & _RULES.keys()) >= 25


def test_a_verdict_is_that_of_running_every_node(monkeypatch: pytest.MonkeyPatch) -> None:
    scale, told = Scale(24, 16, 6, 1 << 16), graphs()
    verdicts = [divergence(graph, scale) for graph in told]
    monkeypatch.setattr(question, "PROVEN", -1.0)
    assert [divergence(graph, scale) for graph in told] == verdicts
    assert {"a singularity at zero", "values grow out of bounds", None} == set(verdicts)


def test_no_normal_number_is_larger_than_the_bounds_say() -> None:
    for dtype in ("float32", "float64"):
        assert np.abs(_normals(dtype)).max() <= LARGEST_NORMAL
