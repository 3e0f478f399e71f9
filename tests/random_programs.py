"""Random well-typed programs, the same for the same seed: mutated seed programs, and programs grown
from random instructions."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from primitives.dna import DNA, INPUTS, Instruction, Subroutine
from primitives.graph import Graph, IllTyped, build
from primitives.seeds import load_seed, seed_names
from primitives.table import PRIMITIVES
from search.mutation import mutate

DIMS = (8, 1, 2, 4)
CONSTANTS = (0.0, 0.5, -1.5)

_RARE = ("EXP", "CUM PROD", "RED PROD", "RECIP", "LOG", "DIVIDE")
"""Ops that overflow or amplify when they pile up."""
_OFTEN = ("MASK", "MAT MUL", "T-MAT MUL")
"""Ops that seldom fit: without more draws few programs would have states over key positions."""
_WEIGHTS = [
    0.0 if row.routing else 0.4 if name in _RARE else 15.0 if name in _OFTEN else 1.0
    for name, row in PRIMITIVES.items()
]


def walk(seed_program: str, steps: int, rng: random.Random) -> Iterator[DNA]:
    """`steps` programs, each a well-typed mutant of the one before it."""
    dna = load_seed(seed_program)
    for _ in range(steps):
        child, _ = mutate(dna, rng)
        while not isinstance(build(child), Graph):
            child, _ = mutate(dna, rng)
        dna = child
        yield dna


def grown(rng: random.Random) -> DNA:
    """A program of one to four subroutines, grown instruction by instruction from nothing."""
    dna = DNA(DIMS, CONSTANTS, ())
    for index in reversed(range(rng.randint(1, 4))):
        name = f"f{index}" if index else "main"
        dna = DNA(DIMS, CONSTANTS, (Subroutine(name, (), ("x", "y")), *_shifted(dna)))
        for _ in range(rng.randint(2, 4) if index else rng.randint(5, 16)):
            dna = _longer(dna, rng)
    return _finished(dna)


def programs(count: int, seed: int = 0, largest: int = 2048) -> list[DNA]:
    """`count` well-typed programs that all differ in hash, half of them mutants, half grown. None
    has a state or a weight of more than `largest` scalars a position at d_model 8."""
    rng = random.Random(seed)
    seen: set[str] = set()
    mutants = _new(_mutants(rng), seen, largest)
    others = _new(iter(lambda: grown(rng), None), seen, largest)
    return [*islice(mutants, count // 2), *islice(others, count - count // 2)]


def _mutants(rng: random.Random) -> Iterator[DNA]:
    while True:
        for name in seed_names():
            yield from islice(walk(name, 24, rng), 0, None, 3)


def _new(source: Iterator[DNA], seen: set[str], largest: int) -> Iterator[DNA]:
    for dna in source:
        graph = build(dna)
        if isinstance(graph, Graph) and graph.hash not in seen and _size(graph) <= largest:
            seen.add(graph.hash)
            yield dna


def _size(graph: Graph) -> int:
    """The most scalars a position that a state, or a branch of a weight, has at d_model 8."""
    states = (node.type.size * math.prod(node.type.branches) for node in graph.nodes)
    weights = (math.prod(node.context) * 16 for node in graph.nodes)
    return max(*states, *weights)


def _shifted(dna: DNA) -> tuple[Subroutine, ...]:
    """The subroutines with every call one further down."""
    return tuple(
        Subroutine(
            each.name,
            tuple(
                row._replace(op=row.op + 1) if isinstance(row.op, int) else row
                for row in each.instructions
            ),
            each.states,
        )
        for each in dna.subroutines
    )


def _longer(dna: DNA, rng: random.Random) -> DNA:
    """The program with one more instruction at the end of its main, if one of 40 fits."""
    for _ in range(40):
        made = INPUTS + len(dna.subroutines[0].instructions)
        latest = made - 1
        child = _with(
            dna,
            Instruction(
                _random_op(dna, rng),
                latest if rng.random() < 0.75 else rng.randrange(made),
                latest if rng.random() < 0.3 else rng.randrange(made),
                rng.randrange(len(CONSTANTS)),
                rng.randrange(len(DIMS)),
                rng.choice((2, 2, 4, 8)) if rng.random() < 0.25 else 1,
            ),
        )
        if _typed(child):
            return child
    return dna


def _random_op(dna: DNA, rng: random.Random) -> str | int:
    if len(dna.subroutines) > 1 and rng.random() < 0.3:
        return rng.randrange(1, len(dna.subroutines))
    return rng.choices(list(PRIMITIVES), _WEIGHTS)[0]


def _typed(dna: DNA) -> bool:
    """Whether all live states have a type, whatever the last one's is."""
    made = build(dna)
    return isinstance(made, Graph) or made.reason.startswith("the block must give")


def _finished(dna: DNA) -> DNA:
    """The program with instructions at its end that give the block's type."""
    last = INPUTS + len(dna.subroutines[0].instructions) - 1
    masked = _with(dna, Instruction("MASK", last))
    mixed = _with(masked, Instruction("MAT MUL", last + 1, 0))
    projected = _with(dna, Instruction("CONV 1X1", last))
    joined = _with(projected, Instruction("ADD", last + 1, 0))
    for candidate in (dna, mixed, joined, projected):
        if not isinstance(build(candidate), IllTyped):
            return candidate
    raise AssertionError(f"nothing finishes {dna}")


def _with(dna: DNA, instruction: Instruction) -> DNA:
    """The program with an instruction at the end of its main."""
    main, *others = dna.subroutines
    states = (*main.states, f"s{len(main.instructions)}")
    main = Subroutine(main.name, (*main.instructions, instruction), states)
    return replace(dna, subroutines=(main, *others))
