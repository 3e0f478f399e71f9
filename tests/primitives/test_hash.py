"""The hash of a program: what changes nothing that it computes does not change the hash, and all
that it computes does."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from primitives import DNA, Graph, IllTyped, Instruction, Subroutine, build, parse, render
from primitives.language.dna import BRANCHES, INPUTS, ROUTED
from primitives.ops.table import PRIMITIVES
from primitives.programs.seeds import load_seed, seed_names, seed_text
from tests.primitives.call_sites import unshared
from tests.reference.random_programs import TOP_2, programs, routed_programs

BANKS = "dims d0=8 d1=1\nconstants c0=0.0 c1=0.5\n"
MAIN = f"{BANKS}main(x, y):\n"


NAMES = [name for name, row in PRIMITIVES.items() if "count" not in row.reads]


def digest(dna: DNA) -> str:
    graph = build(dna, bidirectional=True)
    assert isinstance(graph, Graph), graph
    return graph.hash


def test_comments_do_not_change_the_hash() -> None:
    text = seed_text("transformer")
    commented = text.replace("\n", "  # so\n")
    assert digest(parse(commented, d_model=64)) == digest(parse(text, d_model=64))


def rewritten(dna: DNA, change: Callable[[Instruction], Instruction]) -> DNA:
    """Every instruction changed."""
    return replace(
        dna,
        subroutines=tuple(
            replace(each, instructions=tuple(change(row) for row in each.instructions))
            for each in dna.subroutines
        ),
    )


def other_silent_genes(dna: DNA, rng: random.Random) -> DNA:
    def change(row: Instruction) -> Instruction:
        reads = PRIMITIVES[row.op].reads if isinstance(row.op, str) else ("in1", "in2")
        drawn = {
            "in1": rng.randrange(row.in1 + 1),
            "in2": rng.randrange(row.in1 + 1),
            "constant": rng.randrange(len(dna.constants)),
            "dim": rng.randrange(len(dna.dims)),
            "count": rng.randrange(max(1, len(dna.counts))),
        }
        return row._replace(**{k: v for k, v in drawn.items() if k not in reads})

    return rewritten(dna, change)


def other_input_order(dna: DNA, rng: random.Random) -> DNA:
    def change(row: Instruction) -> Instruction:
        swaps = isinstance(row.op, str) and PRIMITIVES[row.op].commutative
        return row._replace(in1=row.in2, in2=row.in1) if swaps else row

    return rewritten(dna, change)


def other_banks(dna: DNA, rng: random.Random) -> DNA:
    """Bank values in another order, each twice, and indices to one or the other."""
    banks = dna.dims, dna.constants, dna.counts
    dims, constants, counts = (list(range(len(bank))) * 2 for bank in banks)
    for slots in (dims, constants, counts):
        rng.shuffle(slots)

    def index(slots: list[int], old: int) -> int:
        return rng.choice([new for new, value in enumerate(slots) if value == old] or [0])

    moved = rewritten(
        dna,
        lambda row: row._replace(
            dim=index(dims, row.dim),
            constant=index(constants, row.constant),
            count=index(counts, row.count),
        ),
    )
    return replace(
        moved,
        dims=tuple(dna.dims[old] for old in dims),
        constants=tuple(dna.constants[old] for old in constants),
        counts=tuple(dna.counts[old] for old in counts),
    )


def with_dead_code(dna: DNA, rng: random.Random) -> DNA:
    """In each subroutine, a random instruction that nothing reads, ill-typed or not."""
    result = []
    for each in dna.subroutines:
        at = rng.randrange(len(each.instructions))
        made = INPUTS + at
        op, reads = rng.choice(NAMES), (rng.randrange(made), rng.randrange(made))
        dead = Instruction(op, *reads, branch=rng.choice((*BRANCHES, ROUTED)))
        later = [
            row._replace(in1=row.in1 + (row.in1 >= made), in2=row.in2 + (row.in2 >= made))
            for row in each.instructions[at:]
        ]
        states = (*each.states[:made], "dead", *each.states[made:])
        result.append(Subroutine(each.name, (*each.instructions[:at], dead, *later), states))
    return replace(dna, subroutines=tuple(result))


def other_names(dna: DNA, rng: random.Random) -> DNA:
    names = [f"n{number}" for number in range(len(dna.subroutines))]
    return replace(
        dna,
        subroutines=tuple(
            Subroutine(name, each.instructions, tuple(f"{state}_" for state in each.states))
            for name, each in zip(names, dna.subroutines, strict=True)
        ),
    )


def with_calls_of_their_own(dna: DNA, rng: random.Random) -> DNA:
    return unshared(dna)


@pytest.mark.parametrize(
    "change",
    [
        other_silent_genes,
        other_input_order,
        other_banks,
        with_dead_code,
        other_names,
        with_calls_of_their_own,
    ],
)
def test_the_hash_is_blind_to(change: Callable[[DNA, random.Random], DNA]) -> None:
    rng, differing = random.Random(1), 0
    for dna in [*map(load_seed, seed_names()), *programs(100), *routed_programs(60)]:
        other = change(dna, rng)
        differing += other != dna
        assert digest(other) == digest(dna), f"{render(dna)}\n{render(other)}"
    assert differing > 50


def other_instruction_order(dna: DNA, rng: random.Random) -> DNA:
    """The instructions of each subroutine in another order that keeps inputs before readers."""
    return replace(dna, subroutines=tuple(_reordered(each, rng) for each in dna.subroutines))


def _reordered(each: Subroutine, rng: random.Random) -> Subroutine:
    rows = each.instructions
    order = list(range(INPUTS))
    while len(order) < INPUTS + len(rows):
        ready = [
            state
            for state, row in enumerate(rows, INPUTS)
            if state not in order and row.in1 in order and row.in2 in order
        ]
        last = INPUTS + len(rows) - 1
        order.append(rng.choice([state for state in ready if state != last] or ready))
    number = {state: place for place, state in enumerate(order)}
    moved = (rows[state - INPUTS] for state in order[INPUTS:])
    return Subroutine(
        each.name,
        tuple(row._replace(in1=number[row.in1], in2=number[row.in2]) for row in moved),
        tuple(each.states[state] for state in order),
    )


def test_the_hash_is_all_but_blind_to_the_order_of_writing() -> None:
    """Only where two commutative inputs differ in nothing but their weights does order show."""
    rng = random.Random(1)
    for name in seed_names():
        for _ in range(10):
            assert digest(other_instruction_order(load_seed(name), rng)) == digest(load_seed(name))
    drawn = [*programs(200), *routed_programs(60)]
    pairs = [(dna, other_instruction_order(dna, rng)) for dna in drawn]
    moved = [(dna, other) for dna, other in pairs if dna != other]
    assert len(moved) > 80
    assert sum(digest(dna) == digest(other) for dna, other in moved) >= 0.98 * len(moved)


LIVE_CHANGES = [
    ("EXP(x)", "SQUARE(x)"),
    ("c1=", "c1=1"),
    ("d1=1", "d1=2"),
    ("branch=8", "branch=4"),
    ("(scaled, key)", "(key, scaled)"),
    ("DIVIDE(visible, total)", "DIVIDE(visible, visible)"),
    ("MAT MUL(weights, value)", "MAT MUL(weights, key)"),
    ("residual(x, mixed)", "residual(x, normed)"),
]


@pytest.mark.parametrize("name", [name for name in seed_names() if "campaign" not in name])
def test_the_hash_sees_live_changes(name: str) -> None:
    """A bank value, op, branch or input that is read gives a program of its own."""
    dna = load_seed(name)
    text = render(dna)
    changes = [change for change in LIVE_CHANGES if change[0] in text]
    made = [build(parse(text.replace(*change)), bidirectional=True) for change in changes]
    hashes = [graph.hash for graph in made if isinstance(graph, Graph)]
    assert len(hashes) >= 6
    assert len({*hashes, digest(dna)}) == len(hashes) + 1


BIAS = "noisy = BALANCE_BIAS(scores) constant=c1 count=n0\n  chosen = TOP_K(noisy)"
ROUTING_CHANGES = [
    ("n0=4", "n0=8"),
    ("n1=2", "n1=1"),
    ("SCORE(", "FROZEN("),
    ("branch=routed", "branch=1"),
    ("out = softmax(chosen)", "out = STOP_GRAD(chosen)"),
    ("TOP_K(scores) count=n1", "ASSIGN(scores)"),
    ("chosen = TOP_K(scores)", BIAS),
    ("chosen = TOP_K(scores)", BIAS.replace("n0", "n1")),
    ("chosen = TOP_K(scores)", BIAS.replace("c1", "c0")),
]


def test_the_hash_sees_live_changes_of_routing() -> None:
    text = render(TOP_2)
    made = [parse(text.replace(*change)) for change in ROUTING_CHANGES]
    hashes = [graph.hash for graph in map(build, made) if isinstance(graph, Graph)]
    assert len(hashes) == 9
    assert len({*hashes, digest(TOP_2)}) == len(hashes) + 1


def test_the_hash_counts_weights() -> None:
    """Two projections are not one used twice; two squares of one state are."""
    twice = parse(MAIN + "  a = CONV 1X1(x)\n  b = CONV 1X1(x)\n  s = ADD(a, b)\n")
    once = parse(MAIN + "  a = CONV 1X1(x)\n  s = ADD(a, a)\n")
    assert digest(twice) != digest(once)
    twice = parse(MAIN + "  a = SQUARE(x)\n  b = SQUARE(y)\n  s = ADD(a, b)\n")
    once = parse(MAIN + "  a = SQUARE(y)\n  s = ADD(a, a)\n")
    assert digest(twice) == digest(once)
    two = MAIN + "  a = SQUARE(x)\n  b = ABS(x)\n  s = ADD(a, b)\n"
    twice = parse(two + "  t = ADD(b, a)\n  u = MULTIPLY(s, t)\n")
    assert digest(twice) == digest(parse(two + "  u = MULTIPLY(s, s)\n"))


def test_the_hash_does_not_depend_on_what_was_hashed_before() -> None:
    """-0.0 equals 0.0 and would be taken for it in any cache: whichever comes first, it shows."""
    texts = [f"dims d0=8\nconstants c0={c}\nmain(x, y):\n  s = MAX(x)\n" for c in ("0.0", "-0.0")]
    program = "import sys; from primitives import build, parse\n"
    program += "for text in sys.argv[1:]: print(build(parse(text)).hash)"
    forward = in_fresh_interpreter(program, *texts)
    assert forward == in_fresh_interpreter(program, *texts[::-1])[::-1]


def test_long_programs_are_hashed_and_exploding_ones_refused() -> None:
    """A step makes up to two nodes; calls may double with every level."""
    steps = "".join(f"  s{i} = CONV 1X1(s{i - 1}) dim=d1 branch=8\n" for i in range(1, 101))
    calls = "".join(f"  s{i} = f(s{i - 1})\n" for i in range(1, 31))
    long = f"{BANKS}main(s0, y):\n{calls}\nf(s0, y):\n{steps}"
    assert isinstance(build(parse(long)), Graph)
    levels = "".join(f"f{i}(x, y):\n  s = f{i + 1}(x)\n  t = f{i + 1}(s)\n" for i in range(14))
    made = build(parse(f"{MAIN}  s = f0(x)\n{levels}f14(x, y):\n  s = ABS(x)\n"))
    assert isinstance(made, IllTyped)
    assert "more than 4096 steps" in made.reason


def in_fresh_interpreter(program: str, *arguments: str, hash_seed: str = "0") -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.split()


def test_hashes_are_the_same_in_every_interpreter() -> None:
    program = (
        "from primitives import build\n"
        "from primitives.programs.seeds import load_seed, seed_names\n"
        "for name in seed_names(): print(build(load_seed(name), True).hash)"
    )
    here = [digest(load_seed(name)) for name in seed_names()]
    assert len(set(here)) == len(here)
    for hash_seed in ("1", "4242"):
        assert in_fresh_interpreter(program, hash_seed=hash_seed) == here


def test_the_transformers_hash_is_pinned() -> None:
    """Databases hold hashes: a change of the canonical form must be deliberate."""
    assert digest(load_seed("transformer", 128)) == "38e0e104f41d2e50d3b6680a2e2fd06c"


ONE_DRAW = "  noise = NOISE(x)\n  gap = DIFFERENCE(noise, noise)\n  out = ADD(x, gap)\n"
TWO_DRAWS = (
    "  noise = NOISE(x)\n  again = NOISE(x)\n  gap = DIFFERENCE(noise, again)\n"
    "  out = ADD(x, gap)\n"
)


@pytest.mark.parametrize("op", ["NOISE", "UNIFORM"])
def test_each_random_instruction_is_a_draw_of_its_own(op: str) -> None:
    """As each weighted one has a weight of its own; a deterministic one is computed once."""
    texts = [MAIN + each.replace("NOISE", op) for each in (ONE_DRAW, TWO_DRAWS)]
    one, two = (build(parse(text)) for text in texts)
    assert isinstance(one, Graph) and isinstance(two, Graph) and one.hash != two.hash
    assert [sum(node.op == op for node in graph.nodes) for graph in (one, two)] == [1, 2]
    merged = [digest(parse(text.replace(op, "TANH"))) for text in texts]
    assert merged[0] == merged[1]


def test_a_subroutine_that_draws_draws_at_each_call() -> None:
    draw = "\ndraw(x, y):\n  out = NOISE(x)\n"
    shared = f"{MAIN}  a = draw(x)\n  out = ADD(a, a)\n{draw}"
    apart = f"{MAIN}  a = draw(x)\n  b = draw(x)\n  out = ADD(a, b)\n{draw}"
    assert digest(parse(shared)) != digest(parse(apart))


def test_draws_are_told_apart_by_what_they_read_and_not_by_their_order() -> None:
    lines = ["  small = C MUL(x) constant=c1\n", "  a = NOISE(x)\n", "  b = NOISE(small)\n"]
    ends = ["  out = ADD(a, b)\n", "  out = ADD(b, a)\n"]
    texts = [MAIN + "".join((*lines, end)) for end in ends]
    texts += [MAIN + "".join((lines[0], lines[2], lines[1], end)) for end in ends]
    same = f"{MAIN}  a = NOISE(x)\n  b = NOISE(x)\n"
    assert len({digest(parse(text)) for text in texts}) == 1
    assert len({digest(parse(same + end)) for end in ends}) == 1
