"""Children are proposed until one gets past the gates."""

from __future__ import annotations

from random import Random

import pytest

from primitives.language.dna import DNA
from search.campaign.gates import (
    Limits,
    Rules,
)
from search.campaign.history import State
from search.campaign.proposal import ProgramCache, Proposal, derive, propose
from search.errors import PrimevoError
from tests.search.children import (
    NEW,
    SEED,
    TASK,
    WIDE,
    graph_of,
    is_new,
    state,
)


def proposal(seed: int, limits: Limits = WIDE, known: State | None = None) -> Proposal:
    rules = Rules(limits, TASK, known or state())
    return propose(rules, ProgramCache(lambda id: SEED, 4), Random(seed))


def test_proposals_pass_the_gates_and_count_what_did_not() -> None:
    made = [proposal(seed) for seed in range(40)]
    assert all(is_new(child.dna) and child.parent_id == 1 for child in made)
    assert all(graph_of(child.dna).hash == child.hash for child in made)
    assert sum(sum(child.rejections.values()) for child in made) > 10
    assert [proposal(seed) for seed in range(40)] == made


def test_a_proposal_names_the_candidate_that_it_repeats() -> None:
    known = state(proposal(3).dna)
    assert proposal(3, known=known).original == 2


def test_limits_that_nothing_meets_end_the_search_with_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("search.campaign.proposal.PARENTS", 2)
    with pytest.raises(PrimevoError, match=r"no child passed .* 200 tries: too few parameters \("):
        proposal(0, Limits(120, min_parameters=1e12))


def test_programs_are_read_when_asked_for_and_the_latest_kept() -> None:
    read: list[int] = []

    def load(id: int) -> DNA:
        read.append(id)
        return SEED

    programs = ProgramCache(load, capacity=2)
    programs[1] = NEW
    assert programs[1] is NEW and programs[2] is SEED and programs[1] is NEW
    assert programs[3] is SEED and programs[1] is NEW
    assert read == [2, 3]
    assert programs[2] is SEED
    assert read == [2, 3, 2]


def test_derived_numbers_differ_by_name_and_fit_31_bits() -> None:
    numbers = {derive(seed, id) for seed in range(10) for id in range(100)}
    assert len(numbers) == 1000
    assert all(0 <= number < 2**31 for number in numbers)
    assert derive(1, "final") == derive(1, "final") != derive(2, "final")
