"""Programs that several benchmarks train: children of the transformer seed, drawn as a search draws
them."""

from __future__ import annotations

import random
from collections.abc import Iterator

from primitives.language.dna import DNA
from primitives.programs.seeds import load_seed
from search.campaign.gates import PASSED, Child, Limits, Parent, Rules, judge, task_cost
from search.campaign.history import State
from search.config.programfile import checked
from search.config.schema import BudgetSpec, LimitsSpec, SearchSpec
from search.evolution.mutation import mutate
from search.storage.events import Proposed
from workers.spec.task import Task


def children(task: Task) -> Iterator[DNA]:
    """Mutants of the transformer seed that pass the search's gates, no two of them one function;
    the same ones every time."""
    dna, rng = load_seed("transformer"), random.Random(0)
    graph = checked(dna, "transformer")
    state = State(SearchSpec(candidates=1, budget=BudgetSpec(unit="steps", base=1)))
    state.apply(Proposed(1, None, "seed", graph.hash, None, {}))
    rules = Rules(Limits.relative_to(task_cost(graph, task), LimitsSpec()), task, state)
    parent = Parent(dna, graph.hash)
    while True:
        mutant, name = mutate(dna, rng)
        child = Child(mutant, parent, task)
        if judge(child, rules) is PASSED:
            number = state.candidates + 1
            state.apply(Proposed(number, 1, name, child.graph.hash, None, {}))
            yield mutant
