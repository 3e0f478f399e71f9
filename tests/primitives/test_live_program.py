"""The live program of a genome: what runs, and nothing else, under names that say what it is."""

from __future__ import annotations

import random

import pytest

from primitives import DNA, Graph, build, parse, render
from primitives.graph.live import live_program
from primitives.language.dna import INPUTS, verify
from primitives.language.jsonform import from_json, to_json
from primitives.language.naming import stale
from primitives.ops.table import PRIMITIVES
from primitives.programs.seeds import load_seed, seed_names
from tests.reference.random_programs import programs, routed_programs, walk
from tests.reference.seeds import objective_of


def digest(dna: DNA) -> str:
    graph = build(dna, bidirectional=True)
    assert isinstance(graph, Graph), graph
    return graph.hash


def mutants() -> list[DNA]:
    """Seed programs after up to 40 mutations, each well typed, dead instructions and all."""
    rng = random.Random(3)
    return [
        child
        for name in seed_names()
        if objective_of(name) == "next_token"
        for child in [*walk(name, 40, rng)][9::10]
    ]


def states_read(dna: DNA) -> bool:
    """Whether every state but a subroutine's last is read by an instruction after it."""
    return all(
        {state for row in each.instructions for state in (row.in1, row.in2)}
        >= {*range(INPUTS, INPUTS + len(each.instructions) - 1)}
        for each in dna.subroutines
    )


def used(dna: DNA, field: str) -> set[int]:
    rows = [row for each in dna.subroutines for row in each.instructions]
    return {
        getattr(row, field)
        for row in rows
        if isinstance(row.op, str) and field in PRIMITIVES[row.op].reads
    }


@pytest.mark.parametrize("kind", ["grown", "routed", "mutants"])
def test_it_is_the_same_function_and_all_of_it_runs(kind: str) -> None:
    made = {"grown": programs, "routed": routed_programs, "mutants": lambda _: mutants()}[kind](120)
    shorter = 0
    for dna in made:
        live = verify(live_program(dna))
        assert digest(live) == digest(dna), render(dna)
        assert live_program(live) == live
        assert render(live_program(live)) == render(live)
        again = parse(render(live))
        assert again == live == from_json(to_json(live))
        assert render(again) == render(live)
        assert states_read(live), render(live)
        called = {row.op for each in live.subroutines for row in each.instructions}
        assert called >= {*range(1, len(live.subroutines))}
        for field, bank in (
            ("dim", live.dims),
            ("constant", live.constants),
            ("count", live.counts),
        ):
            read = used(live, field)
            assert read == {*range(len(bank))} or (not read and len(bank) == (field != "count"))
        assert not [
            state
            for each in live.subroutines
            for state, row in zip(each.states[INPUTS:], each.instructions, strict=True)
            if stale(state, row.op, live)
        ]
        shorter += live.length < dna.length
    assert shorter > 5


@pytest.mark.parametrize("name", seed_names())
def test_seed_programs_have_nothing_dead_and_keep_their_names(name: str) -> None:
    dna = load_seed(name)
    live = live_program(dna)
    assert live.subroutines == dna.subroutines or name.startswith("product_key")
    assert [each.states for each in live.subroutines] == [each.states for each in dna.subroutines]
    assert digest(live) == digest(dna)


def test_what_is_dropped_and_what_is_renamed() -> None:
    dna = parse("""
        dims d0=8 d1=4 d2=2
        constants c0=1.0 c1=2.0
        counts n0=8 n1=4
        every 2

        main(x, y):
          dead = ABS(x)
          sine = CONV 1X1(x, y) constant=c1 dim=d2 branch=4 count=n1
          dconv_3x1 = CONV 1X1(sine) dim=d0
          wide = second(dead, dconv_3x1)
          conv_1x1 = MAX(wide) constant=c1
          never_2 = ADD(x, conv_1x1)
          out = ADD(never_2, conv_1x1)

        never(x, y):
          out = TANH(x)

        second(a, b):
          never = SIGMOID(b) dim=d1
    """)
    assert (
        render(live_program(dna))
        == """\
dims d0=8 d1=2
constants c0=2.0
every 2

main(x, y):
  sine = CONV 1X1(x) dim=d1 branch=4
  conv_1x1 = CONV 1X1(sine) dim=d0
  wide = second(conv_1x1)
  max = MAX(wide) constant=c0
  add = ADD(x, max)
  out = ADD(add, max)

second(a, b):
  sigmoid = SIGMOID(b)
"""
    )
