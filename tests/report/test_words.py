"""Changes in words: what a reader would say of two programs, and nothing of what has no effect."""

from __future__ import annotations

import random

import pytest

from primitives import Graph, build, parse
from primitives.language.dna import DNA
from primitives.language.text import render
from primitives.programs.seeds import load_seed
from search.evolution.mutation import mutate
from search.report.words import changes
from tests.reference.random_programs import programs, routed_programs

SEED = """
dims d0=8 d1=32
constants c0=0.0 c1=1e-06

main(x, y):
  normed = norm(x)
  wide = CONV 1X1(normed) dim=d1
  active = MAX(wide) constant=c0
  fed = CONV 1X1(active) dim=d0
  out = ADD(x, fed)

norm(x, y):
  squares = SQUARE(x)
  mean = RED MEAN(squares)
  floored = MAX(mean) constant=c1
  size = ABS ROOT(floored)
  out = DIVIDE(x, size)
"""
NEAR = "receptive field of a block: one token"


def said(after: str, before: str = SEED) -> list[str]:
    return changes(parse(after), parse(before))


def edited(*pairs: tuple[str, str]) -> list[str]:
    text = SEED
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return said(text)


def test_equal_functions_have_no_change() -> None:
    assert said(SEED) == [NEAR]
    assert edited(("ADD(x, fed)", "ADD(fed, x)")) == [NEAR]
    unread = ("  wide = ", "  idle = DCONV 3X1(normed)\n  wide = ")
    assert edited(unread) == [NEAR]


def test_an_inserted_convolution() -> None:
    before_norm = ("  normed = norm(x)", "  near = DCONV 15X1(x)\n  normed = norm(near)")
    assert edited(before_norm) == [
        "main: new 15x1 depthwise convolution of the block's input, before normed",
        "receptive field of a block: 15 tokens instead of one token",
    ]
    at_the_end = ("ADD(x, fed)", "ADD(x, fed)\n  far = CONV 3X1(out) dim=d0")
    assert edited(at_the_end) == [
        "main: new 3x1 convolution to d_model channels of out, as the block's output",
        "receptive field of a block: 3 tokens instead of one token",
    ]


def test_what_is_gone_and_what_took_its_place() -> None:
    assert edited(("  active = MAX(wide) constant=c0\n", ""), ("active)", "wide)")) == [
        "main: removed active (MAX with 0)",
        NEAR,
    ]
    squared = ("active = MAX(wide) constant=c0", "square = SQUARE(wide)")
    assert edited(squared, ("CONV 1X1(active)", "CONV 1X1(square)")) == [
        "main: SQUARE in place of MAX with 0 of wide, before fed",
        NEAR,
    ]
    assert edited(("norm(x)\n", "CONV 1X1(x) dim=d0\n")) == [
        "main: normed is a linear map to d_model channels instead of norm",
        "no longer called: norm",
        NEAR,
    ]


def test_values_of_banks_and_inputs() -> None:
    assert edited(("d1=32", "d1=12"), ("c1=1e-06", "c1=0.25")) == [
        "main: wide has 3/2 d_model channels instead of 4 d_model",
        "norm: the constant of floored is 0.25 instead of 1e-06",
        NEAR,
    ]
    assert edited(("ADD(x, fed)", "ADD(normed, fed)")) == [
        "main: out reads normed and fed instead of x and fed",
        NEAR,
    ]
    renumbered = SEED.replace("d0=8 d1=32", "d0=32 d1=8")
    renumbered = renumbered.replace("dim=d1", "dim=?").replace("dim=d0", "dim=d1")
    assert said(renumbered.replace("dim=?", "dim=d0")) == [NEAR]


def test_attention_that_is_removed() -> None:
    seed = render(load_seed("transformer", 32))
    without = seed.replace("MAT MUL(weights, value)", "DCONV 3X1(value)")
    assert without != seed
    found = said(without, seed)
    assert found[0] == "attention removed"
    assert "self_attention: out is a 3x1 depthwise convolution instead of MAT MUL" in found
    assert "no longer called: softmax" in found
    assert found[-1] == "receptive field of a block: 3 tokens instead of the whole sequence"
    assert said(seed, without)[0] == "attention added"


def hash_of(dna: DNA) -> str | None:
    graph = build(dna, bidirectional=True)
    return graph.hash if isinstance(graph, Graph) else None


@pytest.mark.parametrize("seed", range(4))
def test_every_difference_of_mutants_is_told(seed: int) -> None:
    rng = random.Random(seed)
    for dna in [*programs(8, seed=seed), *routed_programs(4, seed=seed)]:
        child = dna
        for _ in range(rng.randrange(1, 6)):
            child = mutate(child, rng)[0]
        if hash_of(child) is None:
            continue
        found = changes(child, dna)
        assert (len(found) == 1) == (hash_of(child) == hash_of(dna)), render(child)
        assert found[-1].startswith("receptive field of a block: ")
        assert all("None" not in text for text in found)


def test_weights_that_branches_share() -> None:
    own = render(load_seed("transformer"))
    shared = own.replace(
        "key = multi_head_projection(x)", "key = multi_head_projection(x) branch=shared"
    )
    assert any(
        "key: the branches around it share its weights" in each for each in said(shared, own)
    )
    back = said(own, shared)
    assert any("key: the branches around it have weights of their own" in each for each in back)
    near = "  near = DCONV 3X1(value) branch=shared\n  out = MAT MUL(weights, near)"
    inserted = own.replace("  out = MAT MUL(weights, value)", near)
    assert any("with weights that branches share" in each for each in said(inserted, own))
