"""What a program does, as a digest: NumPy's results against those of the lowered program, and which
programs are one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from primitives import build, parse, render
from primitives.graph.build import Graph
from primitives.language.dna import DNA
from primitives.lowering.behaviour import (
    D_MODEL,
    _applied,
    _drawing,
    behaviour,
    fixed_inputs,
)
from primitives.lowering.dispatch import LoweringOptions
from primitives.lowering.layer import block_function
from primitives.lowering.numeric import results
from primitives.lowering.rewrite import lowered
from primitives.lowering.rotary import with_rotated
from primitives.lowering.weights import weight_specs
from primitives.ops.table import PRIMITIVES
from primitives.programs.seeds import load_seed, seed_names
from tests.reference.random_programs import programs

SEED = load_seed("transformer")
TEXT = render(SEED)


def graph_of(dna: DNA | str) -> Graph:
    graph = build(parse(dna) if isinstance(dna, str) else dna)
    assert isinstance(graph, Graph), graph
    return graph


def changed(old: str, new: str, text: str = TEXT) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


PRODUCTS = changed("out = MAX(x) constant=c0", "small = TANH(x)\n  out = CUM PROD(small)")
"""Running products, which overflow in most random programs."""


@pytest.mark.parametrize("rotary", [False, True])
def test_results_are_those_of_the_lowered_program(rotary: bool) -> None:
    """Random programs and the written ones, with the same random weights, in 32 bits there. A few
    programs enlarge their roundings, such as the sine of what is in the hundreds."""
    compared, off, ops = 0, 0, set[str]()
    options = LoweringOptions(rotary=rotary)
    dense = [load_seed(name) for name in seed_names() if not load_seed(name).counts]
    for dna in [*dense, parse(PRODUCTS), *programs(60, seed=5)]:
        graph, rng = graph_of(dna), np.random.default_rng(3)
        weights = [
            rng.standard_normal(spec.shape) / max(1, spec.fan_in) ** 0.5
            for spec in weight_specs(graph, D_MODEL)
        ]
        nodes = with_rotated(graph.nodes) if rotary else graph.nodes
        with np.errstate(all="ignore"):
            mine = results(nodes, fixed_inputs(), weights)[-1]
            rewritten = results(lowered(graph, rotary), fixed_inputs(), weights)[-1]
        x, given = (fixed_inputs().astype(np.float32), [w.astype(np.float32) for w in weights])
        theirs = np.asarray(block_function(graph, D_MODEL, options)(x, given), np.float64)
        if not np.isfinite(mine).all() or not np.abs(theirs).max() < 1e4:
            continue  # one of them overflows: 32 bits sooner, but the lowered softmax never
        for found in (mine, rewritten):
            error = np.abs(found - theirs).max() / max(1.0, np.abs(theirs).max())
            compared += 1
            off += not error < 2e-3
        ops |= graph.ops
    assert compared >= 80 and off <= 2
    assert {name for name, row in PRIMITIVES.items() if not (row.routing or row.marks)} - ops <= {
        "RED MAX",
        "RED PROD",
    }


SAME = {
    "a floor that does not bind": ("MAX(variance) constant=c2", "ABS(variance)"),
    "the absolute value of what is positive": (
        "exponential = EXP(x)", "power = EXP(x)\n  exponential = ABS(power)",
    ),
    "MASK before EXP": (
        "exponential = EXP(x)\n  visible = MASK(exponential)",
        "exponential = MASK(x)\n  visible = EXP(exponential)",
    ),
    "one more operation that is undone": (
        "wide = CONV 1X1(x) dim=d2",
        "more = ADD(x, x)\n  zero = DIFFERENCE(x, x)\n  again = ADD(x, zero)\n"
        "  wide = CONV 1X1(again) dim=d2",
    ),
    "the square of a root": (
        "floored = MAX(variance) constant=c2",
        "root = ABS ROOT(variance)\n  square = SQUARE(root)\n  floored = MAX(square) constant=c2",
    ),
    "a maximum of one value": (
        "floored = MAX(variance) constant=c2",
        "most = RED MAX(variance)\n  floored = MAX(most) constant=c2",
    ),
}  # fmt: skip

OTHER = {
    "a floor that binds for small inputs": ("c2=1e-06", "c2=0.05"),
    "squared ReLU": (
        "out = MAX(x) constant=c0", "rectified = MAX(x) constant=c0\n  out = SQUARE(rectified)",
    ),
    "a learned scale more": ("wide = CONV 1X1(x)", "s = SCALE(x)\n  wide = CONV 1X1(s)"),
    "another width": ("d2=32", "d2=24"),
    "another kind of convolution": ("CONV 1X1(active) dim=d0", "CONV 3X1(active) dim=d0"),
    "another scale of scores": ("constant=c1", "constant=c2"),
    "no residual": ("out = residual(attended, fed)", "out = residual(fed, fed)"),
}  # fmt: skip


@pytest.mark.parametrize("case", SAME)
def test_programs_of_one_function_have_one_digest(case: str) -> None:
    graph = graph_of(changed(*SAME[case]))
    assert graph.hash != graph_of(SEED).hash
    assert behaviour(graph) == behaviour(graph_of(SEED)) is not None


@pytest.mark.parametrize("case", OTHER)
def test_programs_of_other_functions_have_others(case: str) -> None:
    made = behaviour(graph_of(changed(*OTHER[case])))
    assert made is not None and made != behaviour(graph_of(SEED))


def test_all_dense_seed_programs_differ() -> None:
    dense = [name for name in seed_names() if not load_seed(name).counts]
    digests = {behaviour(graph_of(load_seed(name))) for name in dense}
    assert len(digests) == len(dense) >= 5 and None not in digests


def test_where_it_cannot_be_told_there_is_no_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    routed = [name for name in seed_names() if load_seed(name).counts]
    for name in routed:
        graph = build(load_seed(name), bidirectional=True)
        assert isinstance(graph, Graph) and behaviour(graph) is None, name
    assert routed
    huge = changed("active = relu(wide)", "e = EXP(wide)\n  f = EXP(e)\n  active = EXP(f)")
    assert behaviour(graph_of(huge)) is None
    row = dataclasses.replace(PRIMITIVES["TANH"], name="GELU", code="ops.gelu({x})")
    monkeypatch.setitem(PRIMITIVES, "GELU", row)
    assert behaviour(graph_of(changed("out = MAX(x) constant=c0", "out = GELU(x)"))) is None


def test_a_digest_does_not_depend_on_what_was_asked_before() -> None:
    """States are kept between programs."""
    graphs = [graph_of(dna) for dna in programs(12, seed=8)]
    alone = []
    for graph in graphs:
        _applied.cache_clear()
        _drawing.cache_clear()
        alone.append(behaviour(graph))
    assert [behaviour(graph) for graph in reversed(graphs)] == alone[::-1]
    assert _applied.cache_info().hits > 0 and len(set(alone)) > 6
