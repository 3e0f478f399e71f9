"""The gates that foresee what a child does: what another one did, or that it would diverge."""

from __future__ import annotations

from typing import Any

from primitives.language.dna import DNA
from primitives.language.text import parse, render
from primitives.lowering.behaviour import behaviour
from search.campaign.gates import (
    GATES,
    PASSED,
    Child,
    Parent,
    Rejected,
    Reuse,
    Rules,
    Verdict,
    judge,
)
from search.campaign.history import State
from search.config.schema import BudgetSpec
from search.storage.events import Proposed
from tests.search.children import (
    HASH,
    NEW,
    PARENT,
    SEED,
    TASK,
    WIDE,
    graph_of,
    state,
)
from tests.search.instant import make_config
from tests.search.test_history import ended
from workers.spec.task import ModelSpec, Task, TrainingSpec


def behaves(dna: DNA) -> str:
    digest = behaviour(graph_of(dna))
    assert digest is not None
    return digest


def with_change(old: str, new: str) -> DNA:
    text = render(SEED)
    assert text.count(old) == 1
    return parse(text.replace(old, new))


ABSOLUTE = with_change("MAX(variance) constant=c2", "ABS(variance)")
SQUARED = with_change("out = MAX(x) constant=c0", "r = MAX(x) constant=c0\n  out = SQUARE(r)")
SQUARED_AGAIN = with_change(
    "out = MAX(x) constant=c0", "r = MAX(x) constant=c0\n  out = MULTIPLY(r, r)"
)


def known_by_behaviour(*, pending: bool = False, **search: Any) -> Rules:
    """A campaign that trained the seed, and trained, or trains, squared ReLU."""
    known = State(make_config(**search).search)
    for number, dna in enumerate((SEED, SQUARED), 1):
        event = Proposed(number, None, "seed", graph_of(dna).hash, None, {}, 0, behaves(dna))
        known.apply(event)
        if number == 1 or not pending:
            known.apply(ended(number, number, 2.0))
    return Rules(WIDE, TASK, known)


def test_a_child_that_does_what_its_parent_does_is_mutated_again() -> None:
    parent = Parent(SEED, HASH, behaves(SEED))
    answer = judge(Child(ABSOLUTE, parent, TASK), known_by_behaviour())
    assert answer == Rejected("same behaviour as the parent")
    assert judge(Child(NEW, parent, TASK), known_by_behaviour()) is PASSED


def test_a_child_that_does_what_an_earlier_candidate_does_takes_over_its_outcome() -> None:
    assert behaves(SQUARED_AGAIN) == behaves(SQUARED)
    child = Child(SQUARED_AGAIN, Parent(SEED, HASH, behaves(SEED)), TASK)
    assert judge(child, known_by_behaviour()) == Reuse(2)
    waiting = judge(child, known_by_behaviour(pending=True))
    assert waiting == Rejected("same behaviour as a candidate in training")


def test_behaviour_counts_only_where_the_loss_alone_counts_and_the_config_asks() -> None:
    child = Child(SQUARED_AGAIN, Parent(SEED, HASH, behaves(SEED)), TASK)
    assert judge(child, known_by_behaviour(behaviour=False)) is PASSED
    goals = ("val_loss", "step_time_s")
    assert judge(child, known_by_behaviour(objectives=goals)) is PASSED
    seconds = BudgetSpec(unit="seconds", base=1.0)
    assert judge(child, known_by_behaviour(budget=seconds)) is PASSED


def test_a_copy_is_known_as_its_original_and_is_no_finalist() -> None:
    known = known_by_behaviour(candidates=4).state
    hash = graph_of(SQUARED_AGAIN).hash
    known.apply(Proposed(3, 1, "field", hash, 2, {}, 2))
    known.apply(known.results[2]._replace(sequence=3, id=3))
    known.apply(Proposed(4, 3, "field", graph_of(NEW).hash, None, {}, 3))
    known.apply(ended(4, 4, 3.0))
    assert known.behaviour_of[3] == behaves(SQUARED)
    assert known.searched and known.finalists == (1, 2, 4)
    child = Child(SQUARED, Parent(SQUARED_AGAIN, hash, known.behaviour_of[3]), TASK)
    answer = GATES["behaviour"].judge(child, Rules(WIDE, TASK, known))
    assert answer == Rejected("same behaviour as the parent")


BATCH = Task(
    model=ModelSpec(d_model=64, layers=6, sequence_length=256),
    training=TrainingSpec(batch_size=32),
)
"""Sizes at which a batch has millions of values."""


def foreseen(old: str, new: str, task: Task = BATCH, **search: Any) -> Verdict:
    known = state() if not search else State(make_config(**search).search)
    return judge(Child(with_change(old, new), PARENT, task), Rules(WIDE, task, known))


def test_a_child_that_would_diverge_is_refused_unless_the_config_lets_it_pass() -> None:
    small = Task(model=ModelSpec(d_model=16, layers=1, sequence_length=8))
    logarithm = ("out = MAX(x) constant=c0", "out = LOG(x)")
    expected = Rejected("would diverge: a singularity at zero")
    assert foreseen(*logarithm) == expected
    assert foreseen(*logarithm, divergence=False) is PASSED
    assert foreseen(*logarithm, task=small) is PASSED  # few values: by chance
    powers = ("out = MAX(x) constant=c0", "e = EXP(x)\n  f = EXP(e)\n  out = EXP(f)")
    assert foreseen(*powers) == Rejected("would diverge: values grow out of bounds")
