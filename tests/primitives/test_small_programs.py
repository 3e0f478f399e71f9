"""Many small programs, of which those of equal hash compute the same."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from primitives import DNA, Graph, Instruction, Subroutine, build, render
from primitives.language.dna import ROUTED
from tests.primitives.call_sites import by_site, random_weights
from tests.reference.interpreter import interpret

WIDTH = 8


def small_chains() -> list[DNA]:
    """All programs of this form: main calls f, then runs at most one op; f runs one to three; each
    op and the call in one branch or two."""
    steps = [(op, branch) for op in ("CONV 1X1", "ABS", "SCALE") for branch in (1, 2)]
    tails = [((1, branch), *rest) for branch in (1, 2) for rest in ((), *((s,) for s in steps))]
    bodies = [body for length in (1, 2, 3) for body in product(steps, repeat=length)]

    def chain(name: str, rows: tuple[tuple[str | int, int], ...]) -> Subroutine:
        instructions = tuple(
            Instruction(op, 1 + at if at else 0, branch=branch)
            for at, (op, branch) in enumerate(rows)
        )
        return Subroutine(name, instructions, ("x", "y", *(f"s{at}" for at in range(len(rows)))))

    return [
        DNA((dim,), (0.0,), (chain("main", tail), chain("f", body)))
        for dim, tail, body in product((2, 4, 8), tails, bodies)
    ]


def small_webs() -> list[DNA]:
    """Random programs of three instructions that read anything before them."""
    rng, ops = random.Random(0), ("ADD", "DIFFERENCE", "C MUL", "SCALE")
    states = ("x", "y", "a", "b", "c")

    def row(at: int) -> Instruction:
        in1, in2 = rng.randrange(2 + at), rng.randrange(2 + at)
        return Instruction(rng.choice(ops), in1, in2, constant=rng.randrange(2))

    mains = (Subroutine("main", tuple(map(row, range(3))), states) for _ in range(3000))
    return [DNA((8,), (0.5, -1.5), (main,)) for main in mains]


def small_routers() -> list[DNA]:
    """Two scores, three random steps towards gates, and what an expert does by them."""
    rng, ops = (
        random.Random(0),
        ("TOP_K", "TAKE", "PAIR", "ADD", "MULTIPLY", "ASSIGN", "HASH"),
    )
    states = ("x", "y", "a", "b", "c", "d", "e", "f", "g")
    expert = Subroutine("expert", (Instruction("CONV 1X1"),), ("x", "y", "s"))

    def row(at: int) -> Instruction:
        in1, in2 = 2 + rng.randrange(at), 2 + rng.randrange(at)
        return Instruction(rng.choice(ops), in1, in2, count=rng.randrange(2))

    def main() -> Subroutine:
        scores = (Instruction("SCORE"), Instruction("SCORE"))
        routed = Instruction(1, 0, 6, branch=ROUTED)
        rows = (*scores, *map(row, (2, 3, 4)), routed, Instruction("ADD", 0, 7))
        return Subroutine("main", rows, states)

    return [DNA((8,), (0.0,), (main(), expert), (4, 2)) for _ in range(4000)]


@pytest.mark.parametrize("kind", [small_chains, small_webs, small_routers])
def test_small_programs_of_equal_hash_compute_the_same(kind: Callable[[], list[DNA]]) -> None:
    families: defaultdict[str, list[DNA]] = defaultdict(list)
    for dna in kind():
        graph = build(dna)
        if isinstance(graph, Graph):
            families[graph.hash].append(dna)
    shared = [family for family in families.values() if len(family) > 1]
    assert len(families) > 200 and len(shared) > 20
    x, tokens = np.random.default_rng(0).standard_normal((1, 3, WIDTH)), np.array([[1, 2, 3]])
    for family in shared:
        graph = build(family[0])
        assert isinstance(graph, Graph)
        weights = random_weights(graph, WIDTH, np.random.default_rng(1))
        outputs = [interpret(dna, x, by_site(dna, weights), tokens) for dna in family]
        for dna, output in zip(family, outputs, strict=True):
            same = np.allclose(output, outputs[0], rtol=1e-9, atol=1e-9)
            assert same, f"{render(family[0])}\nhas the hash of\n{render(dna)}"
