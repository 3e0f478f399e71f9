"""Steps of a lineage as edits: together they make the last program; alone they stay well formed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from primitives.graph.build import Graph, IllTyped, build
from primitives.language.dna import DNA, first_fault
from primitives.language.text import parse
from primitives.programs.seeds import load_seed
from search.evolution.mutation import mutate
from search.study.edits import Edit, Labelled, Misfit, all_applied, applied, edits


def lineage(seed: str, number: int, steps: int) -> list[DNA]:
    """Programs that type-check, each a mutation of the one before, as a campaign makes them."""
    rng, made = random.Random(number), [load_seed(seed, 64)]
    while len(made) <= steps:
        child, _ = mutate(made[-1], rng)
        graph = build(child, bidirectional=True)
        if not isinstance(graph, IllTyped) and graph.hash != hash_of(made[-1]):
            made.append(child)
    return made


def hash_of(dna: DNA) -> str:
    graph = build(dna, bidirectional=True)
    assert isinstance(graph, Graph)
    return graph.hash


def result(made: Labelled | Misfit) -> DNA:
    assert isinstance(made, Labelled), made
    return made.dna


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["transformer", "primer", "switch", "peer"]),
    st.integers(0, 10**6),
    st.integers(1, 8),
)
def test_all_edits_make_the_last_program(seed: str, number: int, steps: int) -> None:
    programs = lineage(seed, number, steps)
    first, changes = edits(programs)
    assert len(changes) == steps
    made = first
    for change, program in zip(changes, programs[1:], strict=True):
        made = applied(made, change)  # type: ignore[assignment]
        assert hash_of(result(made)) == hash_of(program)
    assert hash_of(result(all_applied(first, changes))) == hash_of(programs[-1])


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["transformer", "switch"]), st.integers(0, 10**6), st.data())
def test_any_subset_is_well_formed_or_says_why(seed: str, number: int, data: st.DataObject) -> None:
    first, changes = edits(lineage(seed, number, 8))
    kept = [change for change in changes if data.draw(st.booleans())]
    made = all_applied(first, kept)
    if isinstance(made, Misfit):
        assert made.reason
    else:
        assert first_fault(made.dna) is None
        build(made.dna, bidirectional=True)


SEED = """
dims d0=8 d1=32
constants c0=0.0 c1=1.0

main(x, y):
  fed = feed(x)
  out = ADD(x, fed)
feed(x, y):
  wide = CONV 1X1(x) dim=d1
  act = MAX(wide) constant=c0
  narrow = CONV 1X1(act) dim=d0
"""


def program(text: str) -> DNA:
    return parse(text, d_model=64)


def steps(*texts: str) -> tuple[Labelled, tuple[Edit, ...]]:
    return edits([program(text) for text in (SEED, *texts)])


def same(made: Labelled | Misfit, text: str) -> bool:
    return hash_of(result(made)) == hash_of(program(text))


SQUARED = SEED.replace(
    "  narrow = CONV 1X1(act)", "  square = SQUARE(act)\n  narrow = CONV 1X1(square)"
)


def test_two_changes_on_one_edge_come_apart() -> None:
    """MAX > SQUARE > TANH > CONV: TANH alone goes between MAX and CONV."""
    both = SQUARED.replace("CONV 1X1(square)", "CONV 1X1(tanh)").replace(
        "  narrow", "  tanh = TANH(square)\n  narrow"
    )
    first, (square, tanh) = steps(SQUARED, both)
    assert same(applied(first, square), SQUARED)
    alone = SQUARED.replace("square = SQUARE", "tanh = TANH").replace("(square)", "(tanh)")
    assert same(applied(first, tanh), alone)


def test_a_change_of_what_another_brought_cannot_stand_alone() -> None:
    cubed = SQUARED.replace("SQUARE(act)", "MULTIPLY(act, wide)")
    first, (square, change) = steps(SQUARED, cubed)
    made = applied(first, change)
    assert isinstance(made, Misfit) and "which another change brought" in made.reason
    assert same(all_applied(first, [square, change]), cubed)


def test_a_bank_value_and_an_appended_instruction() -> None:
    bank = SEED.replace("c0=0.0", "c0=0.5")
    longer = bank.replace("  narrow = CONV 1X1(act) dim=d0", "  narrow = CONV 1X1(act) dim=d0\n"
                          "  end = TANH(narrow)")  # fmt: skip
    last = longer.replace("  end = TANH(narrow)", "  end = TANH(narrow)\n  more = SIN(end)")
    first, (constant, appended, further) = steps(bank, longer, last)
    assert same(applied(first, constant), bank)
    assert same(applied(first, appended), longer.replace("c0=0.5", "c0=0.0"))
    alone = SEED.replace("dim=d0", "dim=d0\n  more = SIN(narrow)")
    assert same(applied(first, further), alone)


def test_a_deletion_moves_to_another_program() -> None:
    gone = SQUARED.replace("  act = MAX(wide) constant=c0\n", "").replace("(act)", "(wide)")
    first, (square, deletion) = steps(SQUARED, gone)
    alone = SEED.replace("  act = MAX(wide) constant=c0\n", "").replace("(act)", "(wide)")
    assert same(applied(first, deletion), alone)
    assert same(all_applied(first, [square, deletion]), gone)


@pytest.mark.parametrize("seed", range(3))
def test_most_single_steps_of_real_lineages_stand_alone(seed: int) -> None:
    """The rule is of use: of what mutation makes, most can be looked at by itself."""
    first, changes = edits(lineage("transformer", seed, 10))
    fit = [
        isinstance(made, Labelled) and not isinstance(build(made.dna), IllTyped)
        for made in (applied(first, change) for change in changes)
    ]
    assert sum(fit) >= 5
