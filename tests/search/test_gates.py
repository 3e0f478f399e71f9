"""The chain that a child must get past, gate by gate."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from primitives.graph.build import Graph, build
from primitives.language.dna import DNA, Instruction
from primitives.language.text import render
from primitives.lowering.cost import Cost
from primitives.programs.seeds import load_seed, seed_names
from search.campaign.gates import (
    GATES,
    PASSED,
    Child,
    Gate,
    Limits,
    Parent,
    Rejected,
    Reuse,
    Rules,
    Verdict,
    judge,
    task_cost,
)
from search.config.schema import LimitsSpec
from search.evolution.mutation import DEFAULT_PROBABILITIES, mutate
from tests.search.children import (
    HASH,
    ILL,
    NEW,
    OTHER,
    PARENT,
    SEED,
    TASK,
    WIDE,
    children,
    graph_of,
    state,
    verdict,
)
from workers.spec.fit import task_graph
from workers.spec.task import ModelSpec, Task, TrainingSpec

MASKED = Task(training=TrainingSpec(objective="masked"))


RULES = Rules(WIDE, TASK, state())


COST = task_cost(graph_of(NEW), TASK)


def test_the_chain() -> None:
    assert list(GATES) == [
        "change", "types", "length", "seen", "suits", "cost", "memory", "behaviour",
        "divergence",
    ]  # fmt: skip


def test_a_new_well_typed_child_passes() -> None:
    assert verdict(NEW) is PASSED


def test_an_ill_typed_child_is_rejected() -> None:
    assert isinstance(verdict(ILL), Rejected)


def test_type_errors_are_counted_in_few_kinds() -> None:
    verdicts = [GATES["types"].judge(Child(dna, PARENT, TASK), RULES) for dna in children(400)]
    kinds = {answer.reason for answer in verdicts if isinstance(answer, Rejected)}
    assert 4 <= len(kinds) <= 12
    assert all(":" not in kind and "got" not in kind for kind in kinds)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(NEW.length - 1), "too many instructions"),
        (Limits(120, min_parameters=COST.parameters + 1), "too few parameters"),
        (Limits(120, max_parameters=COST.parameters - 1), "too many parameters"),
        (Limits(120, max_flops=COST.flops_per_token - 1), "too many FLOPs"),
    ],
)
def test_limits(limits: Limits, reason: str) -> None:
    assert verdict(NEW, limits) == Rejected(reason)


def test_limits_themselves_are_allowed() -> None:
    size, flops = COST.parameters, COST.flops_per_token
    assert verdict(NEW, Limits(NEW.length, size, size, flops)) is PASSED


def test_limits_are_relative_to_the_first_seed_program() -> None:
    spec = LimitsSpec(parameters_min=0.5, parameters_max=None, flops_max=1.5)
    limits = Limits.relative_to(Cost(1000, 200, 0, 1000, 0), spec)
    assert limits == Limits(120, 500.0, math.inf, 300.0)


def with_dead_instruction(dna: DNA) -> DNA:
    """MAIN gets one more instruction, before its last, that nothing reads."""
    main, *rest = dna.subroutines
    rows = (*main.instructions[:-1], Instruction("TANH"), main.instructions[-1])
    states = (*main.states[:-1], "unread", main.states[-1])
    return replace(dna, subroutines=(replace(main, instructions=rows, states=states), *rest))


def test_a_change_that_main_does_not_reach_is_seen_without_a_graph() -> None:
    spare = replace(SEED.subroutines[-1], name="spare")
    parent = replace(SEED, subroutines=(*SEED.subroutines, spare))
    changed = replace(spare, instructions=(spare.instructions[0]._replace(op="ABS"),))
    dna = replace(parent, subroutines=(*SEED.subroutines, changed))
    child = Child(dna, Parent(parent, HASH), TASK)
    assert judge(child, RULES) == NEUTRAL
    assert "built" not in vars(child)


NEUTRAL = Rejected("same function as the parent")


def with_a_spare_subroutine(dna: DNA, rng: Random) -> DNA:
    """What a plug-in's mutation may do: a subroutine more, or, if there is one, less."""
    *others, last = dna.subroutines
    if last.name == "spare":
        return replace(dna, subroutines=tuple(others))
    return replace(dna, subroutines=(*dna.subroutines, replace(last, name="spare")))


@pytest.mark.parametrize("name", seed_names())
def test_a_child_is_neutral_exactly_where_its_hash_is_the_parents(name: str) -> None:
    """All along a random walk from every seed program, with every kind of mutation."""
    rng, found = Random(name), {True: 0, False: 0}
    parent = load_seed(name)
    task = TASK if isinstance(build(parent), Graph) else MASKED
    rules = Rules(Limits(10**6), task, state(divergence=False))
    for number in range(400):
        if number % 40 == 0:
            dna = with_a_spare_subroutine(parent, rng)
        else:
            dna, _ = mutate(parent, rng, {"bank": 2.0, **dict.fromkeys(DEFAULT_PROBABILITIES, 1.0)})
        built, hash = task_graph(dna, task), graph_of(parent, task).hash
        answer = judge(Child(dna, Parent(parent, hash), task), rules)
        same = isinstance(built, Graph) and built.hash == hash
        assert (answer == NEUTRAL) == same, (render(parent), render(dna))
        quick = GATES["change"].judge(Child(dna, Parent(parent, ""), task), rules)
        assert quick is PASSED or same
        found[same] += 1
        if isinstance(built, Graph) and not same and number % 3 == 0:
            parent = dna
    assert min(found.values()) > 20


@pytest.mark.parametrize(
    "change",
    [{"counts": (16, 1)}, {"every": 2}, {"every": 0}],
)
def test_experts_and_the_blocks_that_run_a_program_can_change(change: dict[str, Any]) -> None:
    switch = load_seed("switch")
    changed = replace(switch, **change)
    child = Child(changed, Parent(switch, graph_of(switch).hash), TASK)
    assert judge(child, Rules(Limits(10**6), TASK, state())) is PASSED


def test_evolution_changes_the_number_of_experts_and_every() -> None:
    """Bank mutations of `switch` whose graph is another one all get past the first gates."""
    switch, rng, passed = load_seed("switch"), Random(0), {"counts": 0, "every": 0}
    parent = Parent(switch, graph_of(switch).hash)
    rules = Rules(Limits(10**6), TASK.model_copy(update={"model": ModelSpec(layers=4)}), state())
    for _ in range(300):
        dna, _ = mutate(switch, rng, {"bank": 1.0})
        for field in passed:
            if getattr(dna, field) != getattr(switch, field):
                passed[field] += judge(Child(dna, parent, TASK), rules) != NEUTRAL
    assert min(passed.values()) > 20


def test_a_constant_that_changes_its_sign_only_is_a_change() -> None:
    zero = next(index for index, value in enumerate(SEED.constants) if value == 0)
    constants = tuple(-c if index == zero else c for index, c in enumerate(SEED.constants))
    dna = replace(SEED, constants=constants)
    same = graph_of(dna).hash == HASH
    assert (verdict(dna) == NEUTRAL) == same


@pytest.mark.parametrize(("every", "layers"), [(4, 3), (2, 1)])
def test_a_child_that_no_block_would_run_is_rejected(every: int, layers: int) -> None:
    switch = load_seed("switch")
    child = Child(replace(switch, every=every), Parent(switch, graph_of(switch).hash), TASK)
    for depth, expected in (
        (layers, Rejected("no layer would run the program")),
        (layers + 1, PASSED),
    ):
        task = TASK.model_copy(update={"model": ModelSpec(layers=depth)})
        assert judge(child, Rules(Limits(10**6), task, state())) == expected


def test_a_plug_ins_gate_comes_last() -> None:
    def no_tanh(child: Child, rules: Rules) -> Verdict:
        return Rejected("TANH is out of fashion") if "TANH" in child.graph.ops else PASSED

    assert verdict(NEW) is PASSED
    GATES.register(Gate("no_tanh", no_tanh))
    try:
        main, *rest = SEED.subroutines
        tanh = main.instructions[-1]._replace(op="TANH", in1=len(main.states) - 2)
        changed = replace(main, instructions=(*main.instructions[:-1], tanh))
        dna = replace(SEED, subroutines=(changed, *rest))
        assert verdict(dna) == Rejected("TANH is out of fashion")
        assert verdict(NEW) is PASSED
    finally:
        del GATES["no_tanh"]


@pytest.mark.parametrize("neutral", [SEED, with_dead_instruction(SEED)])
def test_a_child_that_computes_what_its_parent_does_is_mutated_again(neutral: DNA) -> None:
    assert verdict(neutral) == NEUTRAL


def test_a_child_seen_before_takes_over_the_outcome() -> None:
    assert verdict(NEW, known=state(NEW)) == Reuse(2)
    assert verdict(OTHER, known=state(NEW)) is PASSED


def test_a_seen_child_is_not_held_to_the_cost_limits_again() -> None:
    tight = Limits(120, max_parameters=1)
    assert verdict(NEW, tight, state(NEW)) == Reuse(2)


def test_a_child_whose_twin_is_in_training_is_mutated_again() -> None:
    answer = verdict(NEW, known=state(pending=NEW))
    assert answer == Rejected("same function as a candidate in training")
