"""Weights that the branches of a call share: `branch=shared`."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from primitives import DNA, Graph, IllTyped, build, parse, render
from primitives.errors import ProgramError
from primitives.graph.live import live_program
from primitives.kernels.balancing import Run
from primitives.language.dna import SHARED, Instruction
from primitives.language.jsonform import from_json, to_json
from primitives.lowering.behaviour import D_MODEL, fixed_inputs
from primitives.lowering.cost import static_cost
from primitives.lowering.dispatch import LoweringOptions
from primitives.lowering.layer import block_function, lower
from primitives.lowering.numeric import results
from primitives.lowering.stepwise import not_stepwise
from primitives.lowering.weights import has_weight, weight_specs
from primitives.programs.seeds import load_seed
from search.evolution.mutation import MUTATIONS
from tests.primitives.call_sites import by_site, random_weights
from tests.primitives.test_cutting import Both, found_in
from tests.primitives.test_stepwise import Steps
from tests.reference.interpreter import interpret
from tests.reference.random_programs import programs, routed_programs

BANKS = "dims d0=8 d1=2 d2=1\nconstants c0=0.5\ncounts n0=4 n1=2\n\n"
OPS = (
    "CONV 1X1(own) dim=d2", "CONV 3X1(own) dim=d2", "DCONV 3X1(own)", "SCALE(own)", "SHIFT(own)",
    "SCORE(own) count=n0",
)  # fmt: skip
"""Each op that has a weight, of a state that differs between branches."""


def heads(*lines: str, branch: int = 4) -> DNA:
    """A program whose heads run these lines on states of their own, d_model / 4 wide, and give
    `out`; beside them are subroutines to call."""
    body = "".join(f"  {line}\n" for line in ("own = CONV 1X1(x) dim=d1", *lines))
    return parse(
        f"{BANKS}main(x, y):\n  each = head(x) branch={branch}\n"
        "  mixed = CONV 1X1(each) dim=d0\n  out = ADD(x, mixed)\n\n"
        f"head(x, y):\n{body}\n"
        "inner(x, y):\n  own = CONV 1X1(x) dim=d1\n  out = two(own) branch=shared\n\n"
        "two(x, y):\n  wide = CONV 1X1(x) dim=d1\n  out = DCONV 3X1(wide)\n\n"
        "both(x, y):\n  own = CONV 1X1(x) dim=d1\n  out = deeper(own) branch=shared\n\n"
        "deeper(x, y):\n  wide = CONV 1X1(x) dim=d1\n  out = SHIFT(wide) branch=shared\n"
    )


PROGRAMS = {
    **{op.split("(")[0]: heads(f"out = {op} branch=shared") for op in OPS},
    "a call": heads("out = two(own) branch=shared"),
    "a state of all heads": heads("key = two(x) branch=shared", "out = MULTIPLY(own, key)"),
    "groups": heads("out = inner(own) branch=2", branch=2),
    "both axes": heads("out = both(own) branch=2", branch=2),
}


def graph_of(dna: DNA) -> Graph:
    graph = build(dna)
    assert isinstance(graph, Graph), graph
    return graph


def reason(dna: DNA) -> str:
    found = build(dna)
    assert isinstance(found, IllTyped), found
    return str(found)


def with_branch(dna: DNA, old: int, new: int) -> DNA:
    """The program with every `branch` that is `old` made `new`."""

    def changed(row: Instruction) -> Instruction:
        return row._replace(branch=new) if row.branch == old else row

    return replace(
        dna,
        subroutines=tuple(
            replace(each, instructions=tuple(map(changed, each.instructions)))
            for each in dna.subroutines
        ),
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_branch_has_the_one_weight(name: str) -> None:
    """Lowered, and in NumPy, against the interpreter, which runs each branch by itself."""
    dna, x = PROGRAMS[name], fixed_inputs()
    graph = graph_of(dna)
    values = random_weights(graph, D_MODEL, np.random.default_rng(0))
    expected = interpret(dna, x, by_site(dna, values))
    assert np.abs(expected - x).max() > 0.1
    made = block_function(graph, D_MODEL)(tf.constant(x), [tf.constant(each) for each in values])
    np.testing.assert_allclose(made, expected, rtol=1e-6, atol=1e-9)
    mine = results(graph.nodes, x, values)[-1]
    np.testing.assert_allclose(mine, expected, rtol=1e-6, atol=1e-9)


def value_and_gradients(graph: Graph, values: dict[str, np.ndarray]) -> tuple[tf.Tensor, dict]:
    x, weights = tf.constant(fixed_inputs()), {k: tf.constant(v) for k, v in values.items()}
    with tf.GradientTape() as tape:
        tape.watch(weights)
        made = block_function(graph, D_MODEL)(x, list(weights.values()))
        loss = tf.reduce_sum(tf.sin(made))
    return made, tape.gradient(loss, weights)


@pytest.mark.parametrize("name", PROGRAMS)
def test_its_gradient_is_the_sum_of_the_branches(name: str) -> None:
    """A program whose branches have weights of their own, equal ones, gives the same."""
    graph, apart = graph_of(PROGRAMS[name]), graph_of(with_branch(PROGRAMS[name], SHARED, 1))
    specs = weight_specs(graph, D_MODEL)
    arrays = random_weights(graph, D_MODEL, np.random.default_rng(0))
    values = {spec.name: each for spec, each in zip(specs, arrays, strict=True)}
    axes = {
        spec.name: len(node.context)
        for spec, node in zip(specs, filter(has_weight, graph.nodes), strict=True)
    }
    copies, fewer = {}, 0
    for spec in weight_specs(apart, D_MODEL):
        value, first = values[spec.name], axes[spec.name]
        missing = tuple(range(first, first + len(spec.shape) - value.ndim))
        fewer += len(missing)
        copies[spec.name] = np.broadcast_to(np.expand_dims(value, missing), spec.shape)
    made, gradients = value_and_gradients(graph, values)
    expected, parts = value_and_gradients(apart, copies)
    assert fewer
    np.testing.assert_allclose(made, expected, rtol=1e-9)
    for label, part in parts.items():
        first = axes[label]
        more = range(first, first + part.ndim - values[label].ndim)
        total = np.sum(part.numpy(), axis=tuple(more))
        np.testing.assert_allclose(gradients[label], total, rtol=1e-6, atol=1e-9)


def test_parameters_are_counted_once() -> None:
    counts = {}
    for shared in (True, False):
        dna = PROGRAMS["CONV 1X1"] if shared else with_branch(PROGRAMS["CONV 1X1"], SHARED, 1)
        counts[shared] = static_cost(graph_of(dna), 64, 1, 16, 256)
    one = 16 * 8  # d_model / 4 to d_model / 8
    assert counts[False].parameters - counts[True].parameters == 3 * one
    assert counts[False].active_parameters - counts[True].active_parameters == 3 * one
    assert counts[False].flops_per_token == counts[True].flops_per_token
    attention = {
        name: static_cost(graph_of(load_seed(name)), 64, 1, 16, 256)
        for name in ("transformer", "multi_query")
    }
    saved = attention["transformer"].flops_per_token - attention["multi_query"].flops_per_token
    assert saved == 2 * 2 * 7 * 64 * 8  # keys and values of seven heads


def test_what_no_branch_differs_in_is_computed_outside_of_the_call() -> None:
    """The same graph as with the weight before the call."""
    inside = heads("key = CONV 1X1(x) dim=d1 branch=shared", "out = MULTIPLY(own, key)")
    outside = render(inside).replace("head(x)", "head(x, key)").replace(
        "  key = CONV 1X1(x) dim=d1 branch=shared\n", "", 1
    ).replace("MULTIPLY(own, key)", "MULTIPLY(own, y)")  # fmt: skip
    outside = outside.replace("  each =", "  key = CONV 1X1(x) dim=d1\n  each =")
    assert graph_of(parse(outside)).hash == graph_of(inside).hash
    assert graph_of(with_branch(inside, SHARED, 1)).hash != graph_of(inside).hash


def test_where_it_has_no_effect() -> None:
    """Outside of branched calls, and of an op without weights."""
    plain = heads("out = ABS(own)")
    assert graph_of(heads("out = ABS(own) branch=shared")).hash == graph_of(plain).hash
    assert live_program(heads("out = ABS(own) branch=shared")) == live_program(plain)
    main = render(plain).replace("CONV 1X1(each) dim=d0", "CONV 1X1(each) dim=d0 branch=shared")
    assert graph_of(parse(main)).hash == graph_of(plain).hash
    shared = PROGRAMS["a call"]
    assert graph_of(live_program(shared)).hash == graph_of(shared).hash


ROUTED = f"""{BANKS}main(x, y):
  scores = SCORE(x) count=n0
  gates = TOP_K(scores) count=n1
  out = expert(x, gates) branch=routed

expert(x, y):
  wide = CONV 1X1(x) dim=d1
  out = CONV 1X1(wide) dim=d0
"""
INSIDE = f"""{BANKS}main(x, y):
  scores = SCORE(x) count=n0
  gates = TOP_K(scores) count=n1
  out = expert(x, gates) branch=routed

expert(x, y):
  both = head(x) branch=2
  out = CONV 1X1(both) dim=d0

head(x, y):
  own = CONV 1X1(x) dim=d1
  out = CONV 1X1(own) dim=d1 branch=shared
"""
FURTHER = f"""{BANKS}main(x, y):
  out = head(x) branch=4

head(x, y):
  own = CONV 1X1(x) dim=d1
  out = more(own) branch=shared

more(x, y):
  out = CONV 1X1(x) dim=d2 branch=2
"""


@pytest.mark.parametrize(
    ("dna", "told"),
    [
        (
            heads(
                "scores = SCORE(own) count=n0",
                "out = BALANCE_BIAS(scores) constant=c0 count=n1 branch=shared",
            ),
            "branches that differ cannot share a state that each would move",
        ),
        (
            parse(ROUTED.replace("(wide) dim=d0", "(wide) dim=d0 branch=shared")),
            "experts cannot share a weight; apply it before the routed call",
        ),
        (parse(INSIDE), "branches inside an expert cannot share a weight for states that differ"),
        (parse(FURTHER), "a call whose weights are shared cannot branch further; branch outside"),
    ],
)
def test_what_cannot_be_shared(dna: DNA, told: str) -> None:
    assert told in reason(dna)


def test_an_experts_branches_share_what_they_read() -> None:
    """A state that they have in common, in every dispatch strategy, as one that each has its own
    copy of."""
    text = INSIDE.replace("CONV 1X1(own) dim=d1 branch=shared", "MULTIPLY(own, key)").replace(
        "  own = CONV", "  key = CONV 1X1(x) dim=d1 branch=shared\n  own = CONV"
    )
    dna, x = parse(text), fixed_inputs()
    graph = graph_of(dna)
    values = random_weights(graph, D_MODEL, np.random.default_rng(0))
    expected = interpret(dna, x, by_site(dna, values))
    for kind in ("every", "blocks", "entries", "runs"):
        options = LoweringOptions(len(x), x.shape[1], kind=kind, dynamic=kind == "runs")
        made = lower(graph, D_MODEL, options, "nothing").function(
            tf.constant(x), [tf.constant(each) for each in values], Run()
        )
        np.testing.assert_allclose(made, expected, rtol=1e-6, atol=1e-9)


def test_it_is_written_and_read() -> None:
    dna = PROGRAMS["groups"]
    assert "two(own) branch=shared" in render(dna)
    assert parse(render(dna)) == dna == from_json(json.loads(json.dumps(to_json(dna))))
    with pytest.raises(ProgramError, match="unknown branch 'share'; did you mean 'shared'"):
        parse(render(dna).replace("branch=shared", "branch=share"))


def test_mutation_shares_weights_and_gives_branches_their_own_again() -> None:
    multi_head, multi_query = load_seed("transformer"), load_seed("multi_query")
    made = [MUTATIONS["share"].change(multi_head, random.Random(i)) for i in range(60)]
    assert all(row.branch in (1, SHARED, 8) for each in made for row in rows(each))
    assert {sum(row.branch == SHARED for row in rows(each)) for each in made} == {1}
    hashes = {graph_of(each).hash for each in made}
    assert graph_of(multi_head).hash not in hashes and len(hashes) >= 3
    found = {
        graph_of(MUTATIONS["share"].change(each, random.Random(i))).hash
        for each in made
        for i in range(20)
    }
    assert {graph_of(multi_head).hash, graph_of(multi_query).hash} <= found


def test_a_program_without_a_branched_call_has_nothing_to_share() -> None:
    dna = parse("dims d0=8\nconstants c0=0.0\n\nmain(x, y):\n  out = CONV 1X1(x) dim=d0\n")
    assert MUTATIONS["share"].change(dna, random.Random(0)) == dna


@pytest.mark.parametrize("name", ["field", "insert", "field_fitting", "insert_fitting"])
def test_programs_that_share_are_given_more_of_it(name: str) -> None:
    """And no others are."""
    count = {}
    for seed in ("transformer", "multi_query"):
        dna = load_seed(seed)
        before = sum(row.branch == SHARED for row in rows(dna))
        made = [MUTATIONS[name].change(dna, random.Random(i)) for i in range(400)]
        count[seed] = [sum(row.branch == SHARED for row in rows(each)) - before for each in made]
    assert set(count["transformer"]) == {0}
    assert 1 in count["multi_query"]
    assert -1 in count["multi_query"] or "insert" in name


def rows(dna: DNA) -> list[Instruction]:
    return [row for each in dna.subroutines for row in each.instructions]


def sharing(count: int, seed: int) -> list[DNA]:
    """Random programs, dense ones and routed ones, in which `share` found something to share."""
    rng, found = random.Random(seed), list[DNA]()
    for dna in [*programs(count, seed, largest=512), *routed_programs(count, seed, largest=512)]:
        for _ in range(3):
            dna = MUTATIONS["share"].change(dna, rng)
        if any(row.branch == SHARED for row in rows(dna)):
            found.append(dna)
    return found


def test_random_programs_that_share() -> None:
    """Whole against the interpreter, a few positions at a time against the whole, and cut against
    masked."""
    compared: Counter[str] = Counter()
    for dna in sharing(24, seed=1):
        graph, rng = graph_of(dna), np.random.default_rng(0)
        assert graph_of(live_program(dna)).hash == graph.hash
        values, x = random_weights(graph, 8, rng), rng.standard_normal((2, 6, 8))
        tokens = rng.integers(0, 99, (2, 6))
        expected = interpret(dna, x, by_site(dna, values), tokens)
        if not np.abs(expected).max() < 1e6:  # it overflows
            continue
        options, run = LoweringOptions(2, 6), Run(tokens=tf.constant(tokens, tf.int32))
        block = lower(graph, 8, options, "nothing").function
        made = block(tf.constant(x), [tf.constant(each) for each in values], run)
        assert near(np.asarray(made), expected), render(dna)
        compared["whole"] += 1
        if not not_stepwise(graph):
            steps = Steps(dna, "float64")
            assert near(steps.parts((4, 1, 1)), steps.whole()), render(dna)
            compared["steps"] += 1
        both = Both(found_in(dna), "float64", seed=3)
        whole, left = both.outputs()
        assert near(left, whole), render(dna)
        compared["cut"] += 1
    assert min(compared[what] for what in ("whole", "steps", "cut")) >= 6, compared


def near(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.abs(one - other).max() <= 1e-7 * max(1.0, np.abs(other).max()))
