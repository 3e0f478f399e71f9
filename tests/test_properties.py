"""What holds for every well-typed program, tried on hundreds of random ones.

All in float64, so that a real difference stands out from rounding. A program whose output is not
finite or answers to a relative change of 1e-13 with one beyond LOOSE says nothing about
differences: such programs are left out, and counted.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
import tensorflow as tf

from primitives import DNA, Graph, Instruction, Subroutine, build, kernels, render
from primitives.emit import emit
from primitives.layer import block_function
from primitives.plan import feature_size
from primitives.rewrite import lowered
from primitives.table import PRIMITIVES
from search.mutation import mutate
from tests.call_sites import by_site, random_weights
from tests.random_programs import programs
from tests.reference_interpreter import Array, interpret

PROGRAMS = 580
LENGTH, WIDTH = 6, 8
CUTS = (1, 3, 5)
LOOSE = 1e-4

pytestmark = pytest.mark.filterwarnings("ignore:You are using a softmax over axis")


@dataclass(frozen=True)
class Trial:
    """One program run on two random sequences. `outputs` are theirs, `spliced[cut]` those of the
    first sequence with all after `cut` replaced, `prefix` those of both cut off, `alone` that of
    the second sequence without the first, `reference` the interpreter's; `slack` is how far outputs
    may differ by rounding; `misshapen` says which states are not of their type's shape."""

    dna: DNA
    graph: Graph
    outputs: Array
    spliced: dict[int, Array]
    prefix: Array
    alone: Array
    reference: Array
    slack: float
    misshapen: tuple[str, ...]

    @property
    def telling(self) -> bool:
        finite = np.isfinite(self.outputs).all() and np.isfinite(self.reference).all()
        return bool(finite and self.slack < LOOSE)

    def differs(self, ours: Array, theirs: Array) -> bool:
        return not np.all(np.abs(ours - theirs) <= self.slack + 1e-9 * np.abs(theirs))


def traced(graph: Graph, x: tf.Tensor, weights: list[tf.Tensor]) -> tuple[Array, tuple[str, ...]]:
    """The block's output, run line by line, and the states that are not of their type's shape."""
    body = emit(graph, WIDTH)
    values = {**vars(kernels), "x": x}
    values |= {spec.name: weight for spec, weight in zip(body.weights, weights, strict=True)}
    wrong = []
    for line, node in zip(body.lines, lowered(graph)[1:], strict=True):
        exec(line, values)
        made = tuple(values[line.split(" = ")[0]].shape)
        size = feature_size(node.type, WIDTH, x.shape[1])
        if made != (x.shape[0], *node.type.branches, x.shape[1], size):
            wrong.append(f"{line}: {made}, its type is {node.type}")
    return np.array(values[body.result]), tuple(wrong)


def attempt(dna: DNA, seed: int) -> Trial:
    graph = build(dna)
    assert isinstance(graph, Graph)
    rng = np.random.default_rng(seed)
    weights = random_weights(graph, WIDTH, rng)
    tensors = [tf.constant(weight) for weight in weights]
    x = rng.standard_normal((2, LENGTH, WIDTH))
    nudged = x * (1 + 1e-13 * rng.standard_normal(x.shape))
    spliced = np.repeat(x[:1], len(CUTS), axis=0)
    for row, cut in enumerate(CUTS):
        scale = 1 if row % 2 else 20
        spliced[row, cut:] = scale * rng.standard_normal((LENGTH - cut, WIDTH))
    batch = tf.constant(np.concatenate([x, nudged, spliced]))
    outputs, misshapen = traced(graph, batch, tensors)
    block = block_function(graph, WIDTH)
    length = 1 + seed % (LENGTH - 1)
    with np.errstate(all="ignore"):
        slack = 1e-9 + 10 * np.abs(outputs[2:4] - outputs[:2]).max()
    return Trial(
        dna=dna,
        graph=graph,
        outputs=outputs[:2],
        spliced={cut: outputs[4 + row] for row, cut in enumerate(CUTS)},
        prefix=np.array(block(tf.constant(x[:, :length]), tensors)),
        alone=np.array(block(tf.constant(x[1:]), tensors)),
        reference=interpret(dna, x, by_site(dna, weights)),
        slack=float(slack),
        misshapen=misshapen,
    )


@pytest.fixture(scope="module")
def trials() -> list[Trial]:
    return [attempt(dna, seed) for seed, dna in enumerate(programs(PROGRAMS))]


@pytest.fixture(scope="module")
def telling(trials: list[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.telling]


def complaint(faulty: list[Trial]) -> str:
    shortest = min((trial.dna for trial in faulty), key=lambda dna: dna.length)
    return f"{len(faulty)} programs, the shortest of them\n{render(shortest)}"


def test_programs_are_many_and_varied(trials: list[Trial], telling: list[Trial]) -> None:
    assert len({trial.graph.hash for trial in trials}) == PROGRAMS
    assert len(telling) >= 500
    live = Counter(op for trial in telling for op in {node.op for node in trial.graph.nodes})
    assert [name for name in PRIMITIVES if live[name] < 5] == []
    over_keys = [t for t in telling if any(node.type.axis == "S" for node in t.graph.nodes)]
    nested = [t for t in telling if any(len(node.type.branches) > 1 for node in t.graph.nodes)]
    moving = [t for t in telling if not np.allclose(t.outputs[:, 0], t.outputs[:, -1])]
    assert len(over_keys) >= 250
    assert len(nested) >= 15
    assert len(moving) >= 400


def test_states_have_the_shape_of_their_type(trials: list[Trial]) -> None:
    wrong = [fault for trial in trials for fault in trial.misshapen]
    assert wrong == []
    assert all(trial.outputs.shape == (2, LENGTH, WIDTH) for trial in trials)


def test_the_graph_computes_what_the_program_says(telling: list[Trial]) -> None:
    faulty = [trial for trial in telling if trial.differs(trial.outputs, trial.reference)]
    assert not faulty, complaint(faulty)


def test_only_a_softmax_is_finite_where_the_program_overflows(trials: list[Trial]) -> None:
    """Subtracting the maximum is the one liberty that lowering takes."""
    for trial in trials:
        ours, theirs = (np.isfinite(each).all() for each in (trial.outputs, trial.reference))
        stable = any("softmax(" in line for line in emit(trial.graph, WIDTH).lines)
        assert ours == theirs or (ours and stable), render(trial.dna)


def test_what_comes_later_changes_nothing_before(telling: list[Trial]) -> None:
    """A suffix so large that a state overflows may reach back as 0 * inf: those are counted."""
    faulty, flooded, changed = [], 0, 0
    for trial in telling:
        for cut, output in trial.spliced.items():
            before = output[:cut]
            flooded += not np.isfinite(before).all()
            if np.isfinite(before).all() and trial.differs(before, trial.outputs[0, :cut]):
                faulty.append(trial)
            changed += not np.allclose(output[cut:], trial.outputs[0, cut:])
    assert not faulty, complaint(faulty)
    assert flooded <= 0.02 * len(telling) * len(CUTS)
    assert changed >= 0.9 * len(telling) * len(CUTS)


def test_a_prefix_gives_the_prefix_of_the_output(telling: list[Trial]) -> None:
    faulty = [t for t in telling if t.differs(t.prefix, t.outputs[:, : t.prefix.shape[1]])]
    assert not faulty, complaint(faulty)


def test_rows_of_a_batch_are_independent(telling: list[Trial]) -> None:
    faulty = [trial for trial in telling if trial.differs(trial.alone, trial.outputs[1:])]
    assert not faulty, complaint(faulty)


def test_mutants_of_equal_hash_compute_the_same(telling: list[Trial]) -> None:
    """The mutant as written, with the weights that its parent has in canonical order."""
    rng, pairs = random.Random(0), 0
    for seed, trial in enumerate(telling[::2]):
        for _ in range(4):
            mutant, _ = mutate(trial.dna, rng)
            made = build(mutant)
            if mutant == trial.dna or not isinstance(made, Graph) or made.hash != trial.graph.hash:
                continue
            pairs += 1
            numbers = np.random.default_rng(seed)
            weights = random_weights(made, WIDTH, numbers)
            x = numbers.standard_normal((1, 4, WIDTH))
            ours = interpret(mutant, x, by_site(mutant, weights))
            theirs = interpret(trial.dna, x, by_site(trial.dna, weights))
            message = f"{render(trial.dna)}\n{render(mutant)}"
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=trial.slack, err_msg=message)
    assert pairs >= 100


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


@pytest.mark.parametrize("kind", [small_chains, small_webs])
def test_small_programs_of_equal_hash_compute_the_same(kind: Callable[[], list[DNA]]) -> None:
    families: defaultdict[str, list[DNA]] = defaultdict(list)
    for dna in kind():
        graph = build(dna)
        if isinstance(graph, Graph):
            families[graph.hash].append(dna)
    shared = [family for family in families.values() if len(family) > 1]
    assert len(families) > 200 and len(shared) > 20
    x = np.random.default_rng(0).standard_normal((1, 3, WIDTH))
    for family in shared:
        graph = build(family[0])
        assert isinstance(graph, Graph)
        weights = random_weights(graph, WIDTH, np.random.default_rng(1))
        outputs = [interpret(dna, x, by_site(dna, weights)) for dna in family]
        for dna, output in zip(family, outputs, strict=True):
            same = np.allclose(output, outputs[0], rtol=1e-9, atol=1e-9)
            assert same, f"{render(family[0])}\nhas the hash of\n{render(dna)}"
