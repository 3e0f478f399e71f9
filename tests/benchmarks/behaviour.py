"""What looking at behaviour finds: python -m tests.benchmarks.behaviour STORAGE_URL CAMPAIGN ...

From the best quarter of each campaign's programs, its mutations make CHILDREN children of each that
pass all gates but the last. Nothing is trained. Prints one JSON object: how many children
there were, what share had the hash of an earlier child, and of the others the shares that do what
their parent does, what another program before them does, and whose behaviour cannot be told;
`near`, the share that is within a thousandth of the parent and not the same; and the CPU time of a
digest, in milliseconds.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from random import Random

import numpy as np

from primitives.graph.build import Graph
from primitives.lowering.behaviour import behaviour, evaluated
from search.campaign.gates import Child, Limits, Parent, Rejected, Rules, judge, task_cost
from search.campaign.history import State
from search.campaign.queries import stored_program
from search.config.plugins import stored_config
from search.config.programfile import checked
from search.evolution.mutation import mutate
from search.report import queries
from search.storage.store import Store

CHILDREN = 60


class Found:
    """Counts over all campaigns, and the seconds that digests took."""

    def __init__(self) -> None:
        self.told: Counter[str] = Counter()
        self.seconds = 0.0

    def digest(self, graph: Graph) -> str | None:
        began = time.process_time()
        made = behaviour(graph)
        self.seconds += time.process_time() - began
        return made


def main(url: str, names: list[str]) -> None:
    found = Found()
    with Store.open(url, create=False) as store:
        for name in names:
            one(store, name, found)
    told = found.told
    new = told.total() - told["hash"]
    shares = {kind: round(told[kind] / new, 4) for kind in ("parent", "other", "untold", "near")}
    print(
        json.dumps(
            {
                "children": told.total(),
                "hash": round(told["hash"] / told.total(), 4),
                **shares,
                "ms": round(1e3 * found.seconds / new, 2),
            }
        )
    )


def one(store: Store, name: str, found: Found) -> None:
    campaign = store.campaign(name)
    config = stored_config(campaign.config, name)
    task, rng = config.task, Random(1)
    runs = [run for run in queries.runs(store, name) if run.fitness is not None]
    first = checked(stored_program(store, campaign, 1), "the first seed program", task)
    limits = Limits.relative_to(task_cost(first, task), config.search.limits)
    spec = config.search.model_copy(update={"behaviour": False})
    rules = Rules(limits, task, State(spec))
    hashes, digests = set[str](), set[str | None]()
    best = sorted(runs, key=lambda run: run.fitness or 0.0)[: max(4, len(runs) // 4)]
    for run in best:
        dna = stored_program(store, campaign, run.id)
        graph = checked(dna, "a recorded program", task)
        parent, own = Parent(dna, graph.hash), behaviour(graph)
        hashes.add(graph.hash)
        passed = 0
        while passed < CHILDREN:
            child = Child(mutate(dna, rng, spec.mutations)[0], parent, task)
            if isinstance(judge(child, rules), Rejected):
                continue
            passed += 1
            if child.graph.hash in hashes:
                found.told["hash"] += 1
                continue
            hashes.add(child.graph.hash)
            made = found.digest(child.graph)
            found.told[_kind(made, own, digests, child.graph, graph)] += 1
            digests.add(made)


def _kind(
    made: str | None, own: str | None, known: set[str | None], child: Graph, parent: Graph
) -> str:
    if made is None:
        return "untold"
    if made == own:
        return "parent"
    if made in known:
        return "other"
    with np.errstate(all="ignore"):
        ours, theirs = evaluated(child), evaluated(parent)
        if ours is None or theirs is None:
            return "new"
        size = np.sqrt(np.mean(theirs**2, axis=(1, 2), keepdims=True))
        return "near" if np.sqrt(np.mean(((ours - theirs) / size) ** 2)) < 1e-3 else "new"


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
