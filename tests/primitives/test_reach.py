"""How far back blocks look, against what a change of early positions does to their outputs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from primitives import Graph, build, parse
from primitives.graph.reach import receptive_field
from primitives.language.dna import DNA
from primitives.lowering.dispatch import LoweringOptions
from primitives.lowering.layer import lower
from primitives.programs.seeds import load_seed
from tests.primitives.seed_parts import weights_of
from tests.reference.random_programs import programs, routed_programs

WIDTH, LENGTH = 16, 40
BANKS = "dims d0=8\nconstants c0=0.0\nmain(x, y):\n"


def graph_of(program: str | DNA) -> Graph:
    made = build(parse(program) if isinstance(program, str) else program)
    assert isinstance(made, Graph)
    return made


@pytest.mark.parametrize(
    ("lines", "positions"),
    [
        ("  out = SQUARE(x)\n", 1),
        ("  out = DCONV 31X1(x)\n", 31),
        ("  near = CONV 3X1(x) dim=d0\n  out = DCONV 7X1(near)\n", 9),
        ("  near = DCONV 3X1(x)\n  far = DCONV 15X1(x)\n  out = ADD(near, far)\n", 15),
        ("  near = DCONV 3X1(x)\n  out = CUM SUM(near)\n", math.inf),
        ("  far = DCONV 15X1(x)\n  out = DCONV 3X1(x)\n", 3),  # far is read by nothing
    ],
)
def test_convolutions_add_up(lines: str, positions: float) -> None:
    assert receptive_field(graph_of(BANKS + lines)) == positions


def test_attention_reaches_all() -> None:
    assert receptive_field(graph_of(load_seed("transformer"))) == math.inf
    assert receptive_field(graph_of(load_seed("switch"))) == math.inf


def influence(graph: Graph) -> int:
    """How many positions up to itself the last output depends on, by changing each input alone."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((1, LENGTH, WIDTH)).astype(np.float32)
    rows = np.repeat(x, LENGTH, axis=0)
    for position in range(LENGTH):
        rows[position, position] = rng.standard_normal(WIDTH)
    block = lower(graph, WIDTH, LoweringOptions(1, LENGTH))
    weights = [tf.constant(weight) for weight in weights_of(graph).values()]
    last, *changed = (np.asarray(block.function(tf.constant(row[None]), weights))[0, -1]
                      for row in (x[0], *rows))  # fmt: skip
    moved = [not np.array_equal(last, each, equal_nan=True) for each in changed]
    return LENGTH - moved.index(True) if any(moved) else 0


def test_random_programs_look_back_no_further() -> None:
    chosen = [*programs(60, seed=11), *routed_programs(20, seed=11)]
    found = [(graph, receptive_field(graph)) for graph in map(graph_of, chosen)]
    finite = [(graph, field) for graph, field in found if field < LENGTH][:12]
    assert len(finite) >= 8 and any(field > 1 for _, field in finite)
    for graph, field in finite:
        assert influence(graph) <= field
