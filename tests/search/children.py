"""Children of the vanilla seed program, and campaigns that judge them."""

from __future__ import annotations

from random import Random
from typing import Any

from primitives.graph.build import Graph, IllTyped, build
from primitives.language.dna import DNA
from primitives.programs.seeds import load_seed
from search.campaign.gates import (
    Child,
    Limits,
    Parent,
    Rules,
    Verdict,
    judge,
)
from search.campaign.history import State
from search.evolution.mutation import mutate
from search.storage.events import Proposed
from tests.search.instant import make_config
from tests.search.test_history import ended
from workers.spec.fit import task_graph
from workers.spec.task import Task

SEED = load_seed("transformer")
TASK = Task()


def graph_of(dna: DNA, task: Task = TASK) -> Graph:
    graph = task_graph(dna, task)
    assert isinstance(graph, Graph)
    return graph


HASH = graph_of(SEED).hash
WIDE = Limits(120)
PARENT = Parent(SEED, HASH)


def state(*trained: DNA, pending: DNA | None = None, **search: Any) -> State:
    """A campaign that trained the vanilla seed and these, and is training `pending`."""
    result = State(make_config(**search).search)
    for number, dna in enumerate((SEED, *trained), 1):
        result.apply(Proposed(number, None, "seed", graph_of(dna).hash, None, {}))
        result.apply(ended(number, number, 2.0))
    if pending is not None:
        number = result.candidates + 1
        result.apply(Proposed(number, 1, "insert", graph_of(pending).hash, None, {}))
    return result


def verdict(dna: DNA, limits: Limits = WIDE, known: State | None = None) -> Verdict:
    return judge(Child(dna, PARENT, TASK), Rules(limits, TASK, known or state()))


def children(count: int) -> list[DNA]:
    return [mutate(SEED, Random(number))[0] for number in range(count)]


def is_new(dna: DNA) -> bool:
    built = build(dna)
    return isinstance(built, Graph) and built.hash != HASH


NEW, OTHER = [dna for dna in children(100) if is_new(dna)][:2]
ILL = next(dna for dna in children(100) if isinstance(build(dna), IllTyped))
