"""Mutations that look before they change: children have a type, compute something else, and are not
fewer in kind than what Primer's own mutations find."""

from __future__ import annotations

import random

import pytest

from primitives import build, parse, render
from primitives.graph.build import Graph
from primitives.language.dna import BRANCHES, DNA, INPUTS, SHARED, verify
from primitives.ops.table import PRIMITIVES
from primitives.programs.seeds import load_seed, seed_names
from search.evolution.editing import with_row
from search.evolution.mutation import MUTATIONS
from search.evolution.sites import sites

FITTING = ("insert_fitting", "field_fitting")


def grown(seed: int, length: int = 60) -> DNA:
    """The transformer seed after well-typed changes, with dead code and unread inputs in it."""
    rng, dna = random.Random(seed), load_seed("transformer")
    while dna.length < length:
        name = rng.choice(("insert", "swap", "delete_insert"))
        child = MUTATIONS[name].change(dna, rng)
        if isinstance(build(child), Graph):
            dna = child
    return dna


@pytest.mark.parametrize("name", FITTING)
@pytest.mark.parametrize("seed_program", seed_names())
def test_almost_all_children_have_a_type_and_another_graph(name: str, seed_program: str) -> None:
    dna = load_seed(seed_program)
    before, rng = build(dna, bidirectional=True), random.Random(3)
    assert isinstance(before, Graph)
    made = [verify(MUTATIONS[name].change(dna, rng)) for _ in range(60)]
    graphs = [build(child, bidirectional=True) for child in made]
    new = [g for g in graphs if isinstance(g, Graph) and g.hash != before.hash]
    assert len(new) >= 0.8 * len(made)
    assert len({graph.hash for graph in new}) > len(new) / 2


@pytest.mark.parametrize("name", FITTING)
def test_parents_with_dead_code_are_changed_where_they_run(name: str) -> None:
    plain, fitting = 0, 0
    for seed in range(4):
        dna, rng = grown(seed), random.Random(seed)
        hash = build(dna).hash  # type: ignore[union-attr]
        for _ in range(50):
            for mutation in (name, name.removesuffix("_fitting")):
                graph = build(MUTATIONS[mutation].change(dna, rng))
                new = isinstance(graph, Graph) and graph.hash != hash
                fitting += new and mutation == name
                plain += new and mutation != name
    assert fitting >= 170 and plain <= 150


def test_every_primitive_can_be_inserted_and_drawn_again() -> None:
    """The language stays whole: what fits somewhere is found, with every number of branches."""
    dna, rng = load_seed("transformer"), random.Random(0)
    primers = {name for name, row in PRIMITIVES.items() if not (row.routing or row.marks)}
    for name in FITTING:
        old = {s.name: list(s.instructions) for s in dna.subroutines}
        found, branches = set(), set()
        for _ in range(1500):
            for subroutine in MUTATIONS[name].change(dna, rng).subroutines:
                for row in subroutine.instructions:
                    if row not in old[subroutine.name]:
                        found.add(row.op)
                        branches.add(row.branch)
        missing = primers - found
        assert not missing - {"MAT MUL", "T-MAT MUL", "MASK"}, missing
        assert any(isinstance(op, int) for op in found) and len(branches) > 2


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("out = MAX(x) constant=c0", "rectified = MAX(x) constant=c0\n  out = SQUARE(rectified)"),
        ("out = CONV 1X1(x) dim=d1", "q = CONV 1X1(x) dim=d1\n  out = DCONV 3X1(q)"),
    ],
)
def test_what_primer_found_is_one_fitting_insert_away(before: str, after: str) -> None:
    seed = load_seed("transformer")
    wanted = build(parse(render(seed).replace(before, after))).hash  # type: ignore[union-attr]
    rng = random.Random(0)
    for _ in range(2000):
        graph = build(MUTATIONS["insert_fitting"].change(seed, rng))
        if getattr(graph, "hash", None) == wanted:
            return
    pytest.fail("2,000 inserts did not make it")


def test_sites_know_the_types_of_every_run() -> None:
    """Types of a subroutine's states, against those of the nodes that the graph has of them."""
    found = sites(load_seed("transformer"))
    assert found is not None and not found.bidirectional
    names = [subroutine.name for subroutine in found.dna.subroutines]
    assert len(found.runs[names.index("layer_norm")]) == 2
    assert [run.context for run in found.runs[names.index("multi_head_projection")]] == [(8,)] * 3
    (softmax,) = found.runs[names.index("softmax")]
    shown = [str(softmax.types[INPUTS + position]) for position in range(4)]
    closed = "[8 x T, S closed]"
    assert shown == ["[8 x T, S open]", closed, "[8 x T, 1]", closed]
    assert found.edges(names.index("residual")) == [(0, "in1"), (0, "in2")]
    assert (0, "in2") not in found.edges(0)  # layer_norm(normed) reads one input


@pytest.mark.parametrize("seed_program", ["grouped_query", "switch", "peer"])
def test_the_type_of_a_row_is_what_building_says(seed_program: str) -> None:
    """Of every live primitive as it is, and with other branches: where a run gives no type the
    program has none, and where all types stay the program has one."""
    found = sites(load_seed(seed_program))
    assert found is not None
    verdicts = set()
    for index, runs in found.runs.items():
        for position, op, *_ in found.live[index].steps:
            if not isinstance(op, str):
                continue
            row = found.dna.subroutines[index].instructions[position]
            known = [run.types[INPUTS + position] for run in runs]
            assert [found.type_of(row, run) for run in runs] == known
            for branch in {*BRANCHES, SHARED} - {row.branch}:
                new = row._replace(branch=branch)
                types = [found.type_of(new, run) for run in runs]
                built = build(with_row(found.dna, index, position, new))
                shared = "weights are shared cannot branch" in str(built)
                assert not shared or None in types
                if None in types or types == known:
                    assert isinstance(built, Graph) == (types == known), (row, branch, types)
                    verdicts.add((branch, isinstance(built, Graph), shared))
    assert {(SHARED, True, False), (2, False, False)} <= verdicts
    assert (2, False, True) in verdicts or seed_program != "grouped_query"


def test_programs_without_a_type_stay_as_they_are() -> None:
    text = (
        "dims d0=2\nconstants c0=0.0\n\nmain(x, y):\n  a = CONV 1X1(x) dim=d0\n  out = ADD(x, a)\n"
    )
    ill = parse(text)
    assert sites(ill) is None
    for name in FITTING:
        assert MUTATIONS[name].change(ill, random.Random(0)) is ill
