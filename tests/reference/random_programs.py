"""Random well-typed programs, the same for the same seed: mutants of written programs, and programs
grown from random instructions. They are in Primer's language, or, with a count bank, route."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from primitives.graph.build import Graph, IllTyped, build
from primitives.language.dna import DNA, INPUTS, ROUTED, Instruction, Subroutine
from primitives.language.text import parse
from primitives.ops.table import PRIMITIVES
from primitives.programs.seeds import load_seed, seed_names
from search.evolution.mutation import mutate

DIMS = (8, 1, 2, 4)
CONSTANTS = (0.0, 0.5, -1.5)
COUNTS = (4, 2, 1)

_WIDTH = 128
"""d_model that seed programs are loaded for: 1/sqrt(d_head) is 0.25, a round number."""

DENSE_SEEDS = tuple(name for name in seed_names() if not load_seed(name).counts)

LARGE_SEEDS = ("peer_million", "product_key_large")
"""Seed programs at their papers' sizes, of hundreds of thousands of experts: what takes long with
one tests another program of the same form, peer and product_key_memory."""

_RARE = ("EXP", "CUM PROD", "RED PROD", "RECIP", "LOG", "DIVIDE")
"""Ops that overflow or amplify when they pile up."""
_OFTEN = ("MASK", "MAT MUL", "T-MAT MUL")
"""Ops that seldom fit: without more draws few programs would have states over key positions."""
_WEIGHTS = [
    0.0 if row.routing or row.marks else 0.4 if name in _RARE else 15.0 if name in _OFTEN else 1.0
    for name, row in PRIMITIVES.items()
]
_ROUTING = {
    "SCORE": 12.0, "TOP_K": 25.0, "TAKE": 10.0, "PAIR": 10.0, "ASSIGN": 4.0, "HASH": 3.0,
    "TASK": 3.0,
    "SWITCH_LOSS": 15.0, "SPARSITY_LOSS": 5.0, "BALANCE_BIAS": 3.0, "BALANCE": 4.0,
}  # fmt: skip
"""What makes gates, and ops that seldom fit."""
_ROUTING_WEIGHTS = [
    0.0 if row.bidirectional else _ROUTING.get(name, 1.0) if row.routing else 0.3 * weight
    for (name, row), weight in zip(PRIMITIVES.items(), _WEIGHTS, strict=True)
]

_BANKS = "dims d0=8 d1=1 d2=2\nconstants c0=0.0 c1=0.5\ncounts n0=4 n1=2 n2=1\n\n"
_PARTS = """
softmax(x, y):
  powers = EXP(x)
  total = RED SUM(powers)
  out = DIVIDE(powers, total)

expert(x, y):
  wide = CONV 1X1(x) dim=d2
  active = MAX(wide) constant=c0
  out = CONV 1X1(active) dim=d0
"""
TOP_2 = parse(f"""{_BANKS}
main(x, y):
  gates = router(x)
  fed = expert(x, gates) branch=routed
  out = ADD(x, fed)

router(x, y):
  scores = SCORE(x) count=n0
  chosen = TOP_K(scores) count=n1
  out = softmax(chosen)
{_PARTS}""")
PRODUCT_KEYS = parse(f"""{_BANKS}
main(x, y):
  gates = retrieval(x) branch=2
  fed = expert(x, gates) branch=routed
  out = ADD(x, fed)

retrieval(x, y):
  first = sub_key(x)
  second = sub_key(x)
  pairs = PAIR(first, second)
  best = TOP_K(pairs) count=n1
  out = softmax(best)

sub_key(x, y):
  scores = SCORE(x) count=n0
  out = TOP_K(scores) count=n1
{_PARTS}""")
TREE = parse(f"""{_BANKS}
main(x, y):
  heads = branches(x) branch=2
  mixed = CONV 1X1(heads) dim=d0
  out = ADD(x, mixed)

branches(x, y):
  scores = SCORE(x) count=n1
  biased = BALANCE_BIAS(scores) constant=c1 count=n2
  chosen = TOP_K(biased) count=n2
  gates = TAKE(scores, chosen)
  out = leaves(x, gates) branch=routed

leaves(x, y):
  gates = router(x)
  parts = expert(x, gates) branch=routed
  sides = CONV 1X1(parts) dim=d1 branch=2
  out = CONV 1X1(sides) dim=d2

router(x, y):
  scores = SCORE(x) count=n1
  chosen = TOP_K(scores) count=n2
  out = SIGMOID(chosen)
{_PARTS}""")
MIXTURE = parse(f"""{_BANKS}
main(x, y):
  hashed = HASH(x) count=n0
  scores = SCORE(x) count=n0
  noise = NOISE(scores)
  noisy = ADD(scores, noise)
  open = THRESHOLD(noisy) constant=c1
  gates = MULTIPLY(open, scores)
  taken = TAKE(gates, hashed)
  all = expert(x, gates) branch=routed
  one = expert(x, taken) branch=routed
  fed = ADD(all, one)
  out = ADD(x, fed)
{_PARTS}""")
LOSSES = parse(f"""{_BANKS}
main(x, y):
  heads = mixtures(x) branch=2
  mixed = CONV 1X1(heads) dim=d0
  out = ADD(x, mixed)

mixtures(x, y):
  raw = SCORE(x) count=n0
  small = Z_LOSS(raw) constant=c1
  scores = softmax(small)
  chosen = TOP_K(scores) count=n1
  balanced = SWITCH_LOSS(chosen, scores) constant=c1
  learned = REINFORCE(balanced, scores) constant=c1
  fed = expert(x, learned) branch=routed
  frozen = FROZEN(x) count=n0
  assigned = ASSIGN(frozen)
  margins = LOAD_LOSS(assigned, frozen) constant=c1
  one = expert(x, margins) branch=routed
  open = MAX(raw) constant=c0
  few = JOINT_SPARSITY_LOSS(open) constant=c1 count=n1
  all = expert(x, few) branch=routed
  both = ADD(fed, one)
  out = ADD(both, all)
{_PARTS}""")
ROUTED_PROGRAMS = (TOP_2, PRODUCT_KEYS, TREE, MIXTURE, LOSSES)
"""Small ones: two of four experts; 16 by product keys, found twice; a tree in heads; gates over all
experts, closed by a threshold, and a hash; losses on the way of scores, in heads."""


def walk(seed_program: str, steps: int, rng: random.Random) -> Iterator[DNA]:
    """`steps` programs, each a well-typed mutant of the one before it."""
    return _walk(load_seed(seed_program, _WIDTH), steps, rng)


def _walk(dna: DNA, steps: int, rng: random.Random) -> Iterator[DNA]:
    for _ in range(steps):
        child, _ = mutate(dna, rng)
        while not isinstance(build(child), Graph):
            child, _ = mutate(dna, rng)
        dna = child
        yield dna


def grown(rng: random.Random, counts: tuple[int, ...] = ()) -> DNA:
    """A program of one to four subroutines, grown instruction by instruction from nothing; one with
    counts has two at least, to be routed to."""
    dna = DNA(DIMS, CONSTANTS, (), counts)
    for index in reversed(range(rng.randint(2 if counts else 1, 4))):
        name = f"f{index}" if index else "main"
        first = Subroutine(name, (), ("x", "y"))
        dna = replace(dna, subroutines=(first, *_shifted(dna)))
        for _ in range(rng.randint(2, 4) if index else rng.randint(5, 16)):
            dna = _longer(dna, rng)
    return _finished(dna)


def programs(count: int, seed: int = 0, largest: int = 2048) -> list[DNA]:
    """`count` well-typed programs that all differ in hash, half of them mutants, half grown. None
    has a state or a weight of more than `largest` scalars a position at d_model 8."""
    written = tuple(load_seed(name, _WIDTH) for name in DENSE_SEEDS)
    return _drawn(count, seed, largest, written)


def routed_programs(count: int, seed: int = 0, largest: int = 2048) -> list[DNA]:
    """The same with a count bank: two thirds mutants of ROUTED_PROGRAMS, which nearly all route,
    the rest grown."""
    return _drawn(count, seed, largest, ROUTED_PROGRAMS, COUNTS)


def _drawn(
    count: int, seed: int, largest: int, written: tuple[DNA, ...], counts: tuple[int, ...] = ()
) -> list[DNA]:
    rng = random.Random(seed)
    seen: set[str] = set()
    mutants = _new(_mutants(written, rng), seen, largest)
    others = _new(iter(lambda: grown(rng, counts), None), seen, largest)
    most = 2 * count // 3 if counts else count // 2
    return [*islice(mutants, most), *islice(others, count - most)]


def _mutants(written: tuple[DNA, ...], rng: random.Random) -> Iterator[DNA]:
    while True:
        for dna in written:
            yield from islice(_walk(dna, 24, rng), 0, None, 3)


def _new(source: Iterator[DNA], seen: set[str], largest: int) -> Iterator[DNA]:
    for dna in source:
        graph = build(dna)
        if isinstance(graph, Graph) and graph.hash not in seen and size_of(graph) <= largest:
            seen.add(graph.hash)
            yield dna


def size_of(graph: Graph) -> int:
    """The most scalars a position that a state, or a branch of a weight, has at d_model 8."""
    states = (node.type.size * abs(math.prod(node.type.branches)) for node in graph.nodes)
    weights = (abs(math.prod(node.context)) * 16 for node in graph.nodes)
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
        new = Instruction(
            _random_op(dna, rng),
            latest if rng.random() < 0.75 else rng.randrange(made),
            latest if rng.random() < 0.3 else rng.randrange(made),
            rng.randrange(len(CONSTANTS)),
            rng.randrange(len(DIMS)),
            rng.choice((2, 2, 4, 8)) if rng.random() < 0.25 else 1,
        )
        if dna.counts:
            new = _routing(dna, new, rng)
        child = _with(dna, new)
        if _typed(child):
            return child
    return dna


def _random_op(dna: DNA, rng: random.Random) -> str | int:
    if len(dna.subroutines) > 1 and rng.random() < 0.3:
        return rng.randrange(1, len(dna.subroutines))
    return rng.choices(list(PRIMITIVES), _ROUTING_WEIGHTS if dna.counts else _WEIGHTS)[0]


def _routing(dna: DNA, row: Instruction, rng: random.Random) -> Instruction:
    """A random count, and most calls routed, of any token by the latest gates."""
    if isinstance(row.op, int) and rng.random() < 0.7:
        row = row._replace(in1=row.in2, in2=row.in1, branch=ROUTED)
    return row._replace(count=rng.randrange(len(dna.counts)))


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
    summed = _with(_with(dna, Instruction("RED SUM", last)), Instruction("ADD", last + 1, 0))
    for candidate in (dna, mixed, joined, projected, summed):
        if not isinstance(build(candidate), IllTyped):
            return candidate
    raise AssertionError(f"nothing finishes {dna}")


def _with(dna: DNA, instruction: Instruction) -> DNA:
    """The program with an instruction at the end of its main."""
    main, *others = dna.subroutines
    states = (*main.states, f"s{len(main.instructions)}")
    main = Subroutine(main.name, (*main.instructions, instruction), states)
    return replace(dna, subroutines=(main, *others))
