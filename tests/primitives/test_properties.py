"""What holds for every well-typed program, tried on hundreds of random ones.

All in float64, so that a real difference stands out from rounding. A program whose output is not
finite or answers to a relative change of 1e-13 with one beyond LOOSE says nothing about
differences: such programs are left out, and counted. Programs that route run in evaluation mode,
their routed calls in one of three ways, in turn. Every third program runs with rotary positions.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from primitives import DNA, Graph, Instruction, Subroutine, build, render
from primitives.graph.build import DISPATCH, Node
from primitives.kernels import kernels
from primitives.kernels.balancing import Run
from primitives.language.dna import ROUTED
from primitives.language.text import parse
from primitives.lowering.cost import static_cost
from primitives.lowering.dispatch import (
    LoweringOptions,
    feature_size,
    inside_of,
    regions,
    strategies,
)
from primitives.lowering.emit import emit
from primitives.lowering.layer import block_function
from primitives.lowering.render import line
from primitives.lowering.rewrite import lowered
from primitives.lowering.rotary import rotated_states
from primitives.ops.table import PRIMITIVES
from search.evolution.mutation import mutate
from tests.primitives.call_sites import by_site, random_weights
from tests.reference.interpreter import Array, Ids, interpret
from tests.reference.random_programs import programs, routed_programs

PROGRAMS = {"dense": 580, "routed": 160}
TELLING = {"dense": 500, "routed": 129}
MOVING = {"dense": 400, "routed": 104}
KINDS = ("every", "blocks", "entries", "runs")
LENGTH, WIDTH, VOCABULARY = 6, 8, 99
CUTS = (1, 3, 5)
LOOSE = 1e-4

pytestmark = pytest.mark.filterwarnings("ignore:You are using a softmax over axis")


@dataclass(frozen=True)
class Trial:
    """One program run on two random sequences. `outputs` are theirs, `spliced[cut]` those of the
    first sequence with all after `cut` replaced, `prefix` those of both cut off, `alone` that of
    the second sequence without the first, `others` those of routed calls run in other ways,
    `reference` the interpreter's; `slack` is how far outputs may differ by rounding; `misshapen`
    says which states are not of their type's shape."""

    dna: DNA
    graph: Graph
    rotary: bool
    outputs: Array
    spliced: dict[int, Array]
    prefix: Array
    alone: Array
    others: dict[str, Array]
    reference: Array
    slack: float
    misshapen: tuple[str, ...]

    @property
    def telling(self) -> bool:
        finite = np.isfinite(self.outputs).all() and np.isfinite(self.reference).all()
        return bool(finite and self.slack < LOOSE)

    def differs(self, ours: Array, theirs: Array) -> bool:
        return not np.all(np.abs(ours - theirs) <= self.slack + 1e-9 * np.abs(theirs))


def traced(
    graph: Graph,
    x: tf.Tensor,
    weights: list[tf.Tensor],
    tokens: tf.Tensor,
    options: LoweringOptions,
) -> tuple[Array, tuple[str, ...]]:
    """The block's output, run line by line, and the states that are not of their type's shape."""
    body, nodes = emit(graph, WIDTH, options=options), lowered(graph, options.rotary)
    shapes = shapes_of(nodes, x.shape[0], options)
    values = {
        **kernels(),
        "ops": ops,
        "x": x,
        "run": Run(tokens=tokens),
    }
    values |= {spec.name: weight for spec, weight in zip(body.weights, weights, strict=True)}
    wrong = []
    for statement in body.statements:
        written, names, positions = line(statement), statement.names, statement.nodes
        exec(written, values)
        if len(positions) == 1:  # values and indices, or slots and their route
            positions *= 1 if nodes[positions[0]].op == DISPATCH else len(names)
        for name, position in zip(names, positions, strict=False):
            made, axes = tuple(values[name].shape), shapes[position]
            if len(made) != len(axes) or not all(map(set.__contains__, axes, made)):
                wrong.append(f"{written}: {made}, its type is {nodes[position].type}")
    return np.array(values[body.result]), tuple(wrong)


def shapes_of(
    nodes: tuple[Node, ...], batch: int, options: LoweringOptions
) -> list[list[set[int]]]:
    """For each state, sizes that each of its axes may have. In programs that route, a branch axis
    may have size 1 where branches do not differ; experts' tokens lie in any number of blocks."""
    around, chosen, any_size = (
        regions(nodes),
        strategies(nodes, WIDTH, options),
        set(range(1, 1 << 14)),
    )
    routing_ops = {DISPATCH, *(name for name, row in PRIMITIVES.items() if row.routing)}
    loose = not routing_ops.isdisjoint(node.op for node in nodes)
    shapes = []
    for position, node in enumerate(nodes):
        size = {feature_size(node.type, WIDTH, LENGTH)}
        axes = [{abs(n), 1} if loose else {n} for n in node.type.branches]
        region = around[position]
        while (
            region >= 0 and chosen[region].kind != "runs" and around[inside_of(nodes, region)] >= 0
        ):
            region = around[inside_of(nodes, region)]
        if region < 0 or chosen[region].kind == "every":
            shapes.append([{batch}, *axes, {LENGTH}, size])
        else:
            outer = len(nodes[region].context)
            rows = any_size if chosen[region].kind == "entries" else {1}
            shapes.append([rows, *[{1}] * (outer - 1), any_size, *axes[outer:], any_size, size])
    return shapes


def attempt(dna: DNA, seed: int) -> Trial:
    graph = build(dna)
    assert isinstance(graph, Graph)
    rng = np.random.default_rng(seed)
    weights = random_weights(graph, WIDTH, rng)
    tensors = [tf.constant(weight) for weight in weights]
    x = rng.standard_normal((2, LENGTH, WIDTH))
    nudged = x * (1 + 1e-13 * rng.standard_normal(x.shape))
    spliced = np.repeat(x[:1], len(CUTS), axis=0)
    tokens = rng.integers(0, VOCABULARY, (2, LENGTH)) + 2**17 * rng.integers(0, 9, (2, LENGTH))
    later = np.repeat(tokens[:1], len(CUTS), axis=0)
    for row, cut in enumerate(CUTS):
        scale = 1 if row % 2 else 20
        spliced[row, cut:] = scale * rng.standard_normal((LENGTH - cut, WIDTH))
        later[row, cut:] = rng.integers(0, VOCABULARY, LENGTH - cut)
    batch = tf.constant(np.concatenate([x, nudged, spliced]))
    ids = np.concatenate([tokens, tokens, later])
    first, *rest = KINDS[seed % 4 :] + KINDS[: seed % 4]
    rotary = seed // 4 % 3 == 2
    options = LoweringOptions(7, LENGTH, kind=first, dynamic=True, rotary=rotary)
    outputs, misshapen = traced(graph, batch, tensors, ids, options)
    length = 1 + seed % (LENGTH - 1)

    def run(kind: str, x: Array, tokens: Ids) -> Array:
        options = LoweringOptions(*x.shape[:2], kind=kind, dynamic=True, rotary=rotary)
        block = block_function(graph, WIDTH, options)
        return np.array(block(tf.constant(x), tensors, Run(tokens=tokens)))

    with np.errstate(all="ignore"):
        slack = 1e-9 + 10 * np.abs(outputs[2:4] - outputs[:2]).max()
    return Trial(
        dna=dna,
        graph=graph,
        rotary=rotary,
        outputs=outputs[:2],
        spliced={cut: outputs[4 + row] for row, cut in enumerate(CUTS)},
        prefix=run(first, x[:, :length], tokens[:, :length]),
        alone=run(first, x[1:], tokens[1:]),
        others={kind: run(kind, x, tokens) for kind in rest} if routes(graph) else {},
        reference=interpret(dna, x, by_site(dna, weights), tokens, rotary=rotary),
        slack=float(slack),
        misshapen=misshapen,
    )


def routes(graph: Graph) -> bool:
    return any(node.op == DISPATCH for node in graph.nodes)


@cache
def attempts(family: str) -> list[Trial]:
    drawn = {"dense": programs, "routed": routed_programs}[family](PROGRAMS[family])
    return [attempt(dna, seed) for seed, dna in enumerate(drawn)]


@pytest.fixture(scope="module", params=PROGRAMS)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def trials(family: str) -> list[Trial]:
    return attempts(family)


@pytest.fixture(scope="module")
def telling(trials: list[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.telling]


def complaint(faulty: list[Trial]) -> str:
    shortest = min((trial.dna for trial in faulty), key=lambda dna: dna.length)
    return f"{len(faulty)} programs, the shortest of them\n{render(shortest)}"


def lives(telling: list[Trial]) -> Counter[str]:
    """How many programs have each op."""
    return Counter(op for trial in telling for op in {node.op for node in trial.graph.nodes})


def test_programs_are_many_and_varied(family: str, trials: list[Trial]) -> None:
    telling = [trial for trial in trials if trial.telling]
    moving = [t for t in telling if not np.allclose(t.outputs[:, 0], t.outputs[:, -1])]
    assert len({trial.graph.hash for trial in trials}) == PROGRAMS[family]
    assert len(telling) >= TELLING[family]
    assert len(moving) >= MOVING[family]


def test_dense_programs_have_every_part() -> None:
    telling = [trial for trial in attempts("dense") if trial.telling]
    live = lives(telling)
    assert [
        name
        for name, row in PRIMITIVES.items()
        if not (row.routing or row.marks) and live[name] < 5
    ] == []
    over_keys = [t for t in telling if any(node.type.axis == "S" for node in t.graph.nodes)]
    nested = [t for t in telling if any(len(node.type.branches) > 1 for node in t.graph.nodes)]
    assert len(over_keys) >= 250
    turned = [t for t in telling if t.rotary and rotated_states(t.graph.nodes)]
    assert len(turned) >= 75
    assert len(nested) >= 15


def test_routed_programs_have_every_part() -> None:
    telling = [trial for trial in attempts("routed") if trial.telling]
    live = lives(telling)
    seldom = [name for name, row in PRIMITIVES.items() if row.routing and live[name] < 4]
    assert seldom == ["TOP_T", "PRIORITY"]  # they have no type in next-token tasks
    contexts = [{node.context for node in t.graph.nodes if node.op == DISPATCH} for t in telling]
    sparse = [t for t in telling if len({n.support for n in t.graph.nodes}) > 2]
    assert sum(map(bool, contexts)) >= 0.5 * len(telling)
    assert sum(any(len(c) > 1 and min(c[:-1]) < 0 for c in each) for each in contexts) >= 5
    assert sum(any(len(c) > 1 and max(c[:-1]) > 0 for c in each) for each in contexts) >= 10
    assert len(sparse) >= 50


def test_states_have_the_shape_of_their_type(trials: list[Trial]) -> None:
    wrong = [fault for trial in trials for fault in trial.misshapen]
    assert wrong == []
    assert all(trial.outputs.shape == (2, LENGTH, WIDTH) for trial in trials)


def test_the_graph_computes_what_the_program_says(telling: list[Trial]) -> None:
    faulty = [trial for trial in telling if trial.differs(trial.outputs, trial.reference)]
    assert not faulty, complaint(faulty)


def test_routed_calls_may_run_in_any_way() -> None:
    for trial in (trial for trial in attempts("routed") if trial.telling):
        for kind, output in trial.others.items():
            assert not trial.differs(output, trial.outputs), f"{kind}\n{render(trial.dna)}"


def test_programs_cost_and_are_written(trials: list[Trial]) -> None:
    for trial in trials:
        assert parse(render(trial.dna)) == trial.dna
        for kind in KINDS:
            cost = static_cost(
                trial.graph, WIDTH, 1, LENGTH, 5, LoweringOptions(2, LENGTH, kind=kind)
            )
            assert 0 < cost.active_parameters <= cost.parameters, render(trial.dna)
            assert 0 < cost.flops_per_token < 1e9 and 0 < cost.activation_bytes < 1e9


def test_only_a_softmax_is_finite_where_the_program_overflows() -> None:
    """Subtracting the maximum is the one liberty that lowering takes. (A routed call that runs
    every expert on every token may overflow for a token in an expert that it is not routed to.)"""
    for trial in attempts("dense"):
        ours, theirs = (np.isfinite(each).all() for each in (trial.outputs, trial.reference))
        lines = emit(trial.graph, WIDTH).lines
        stable = any("softmax(" in each or "attention(" in each for each in lines)
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


def test_mutants_of_equal_hash_compute_the_same(family: str, telling: list[Trial]) -> None:
    """The mutant as written, with the weights that its parent has in canonical order."""
    rng, pairs = random.Random(0), 0
    some = telling[::2] if family == "dense" else telling
    for seed, trial in enumerate(some):
        for _ in range(4):
            mutant, _ = mutate(trial.dna, rng)
            made = build(mutant)
            if mutant == trial.dna or not isinstance(made, Graph) or made.hash != trial.graph.hash:
                continue
            pairs += 1
            numbers = np.random.default_rng(seed)
            weights = random_weights(made, WIDTH, numbers)
            x, tokens = numbers.standard_normal((1, 4, WIDTH)), numbers.integers(0, 99, (1, 4))
            ours = interpret(mutant, x, by_site(mutant, weights), tokens)
            theirs = interpret(trial.dna, x, by_site(trial.dna, weights), tokens)
            message = f"{render(trial.dna)}\n{render(mutant)}"
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=trial.slack, err_msg=message)
    assert pairs >= 0.35 * len(some)


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
