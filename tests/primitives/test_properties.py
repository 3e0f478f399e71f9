"""What holds for every well-typed program, tried on hundreds of random ones.

All in float64, so that a real difference stands out from rounding. A program whose output is not
finite or answers to a relative change of 1e-13 with one beyond LOOSE (of trials) says nothing about
differences: such programs are left out, and counted. Programs that route run in evaluation mode,
their routed calls in one of three ways, in turn. Every third program runs with rotary positions.
"""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from primitives import Graph, build, render
from primitives.graph.build import DISPATCH
from primitives.language.text import parse
from primitives.lowering.cost import static_cost
from primitives.lowering.dispatch import LoweringOptions
from primitives.lowering.emit import emit
from primitives.lowering.rotary import rotated_states
from primitives.ops.table import PRIMITIVES
from search.evolution.mutation import mutate
from tests.primitives.call_sites import by_site, random_weights
from tests.primitives.trials import CUTS, KINDS, LENGTH, PROGRAMS, WIDTH, Trial, attempts
from tests.reference.interpreter import interpret

TELLING = {"dense": 500, "routed": 129}
MOVING = {"dense": 400, "routed": 104}

pytestmark = pytest.mark.filterwarnings("ignore:You are using a softmax over axis")


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
