"""What becomes of mutations: python -m tests.benchmarks.acceptance STORAGE_URL CAMPAIGN

For the distinct programs of a recorded campaign, each mutation makes CHILDREN children of each, and
the gates judge them as if the program had just been proposed; nothing is trained. Prints one JSON
object with a row for each mutation: `accepted`, the share of children that pass all gates, and the
shares refused, by reason (reasons under 1 % together); `recorded` says how many children of the
mutation the campaign trained, and how many of those that can be compared with their parent at equal
training were better.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from random import Random
from typing import Any

from search.campaign.gates import Child, Limits, Parent, Rejected, Rules, judge, task_cost
from search.campaign.history import State
from search.campaign.queries import stored_program
from search.config.plugins import stored_config
from search.config.programfile import checked
from search.evolution.mutation import MUTATIONS, mutate
from search.report import queries
from search.report.data import mutation_rows
from search.storage.store import Store

CHILDREN = 20


def main(url: str, name: str) -> None:
    with Store.open(url, create=False) as store:
        campaign = store.campaign(name)
        config = stored_config(campaign.config, name)
        runs = queries.runs(store, name)
        parents = [
            stored_program(store, campaign, run.id)
            for run in runs
            if run.duplicate_of is None and run.fitness is not None
        ]
    task = config.task
    cost = task_cost(checked(parents[0], "the first seed program", task), task)
    limits = Limits.relative_to(cost, config.search.limits)
    rules = Rules(limits, task, State(config.search))
    rng, rows = Random(0), dict[str, Any]()
    recorded = {row.mutation: row for row in mutation_rows(runs)}
    for mutation in MUTATIONS:
        told: Counter[str] = Counter()
        for dna in parents:
            parent = Parent(dna, checked(dna, "a recorded program", task).hash)
            for _ in range(CHILDREN):
                child = Child(mutate(dna, rng, {mutation: 1.0})[0], parent, task)
                verdict = judge(child, rules)
                told[verdict.reason if isinstance(verdict, Rejected) else "accepted"] += 1
        rows[mutation] = _row(told)
        if (row := recorded.get(mutation)) is not None:
            rows[mutation]["recorded"] = {
                "children": row.children, "compared": row.compared, "better": row.better,
            }  # fmt: skip
    print(json.dumps({"programs": len(parents), "mutations": rows}, indent=1))


def _row(told: Counter[str]) -> dict[str, Any]:
    total = told.total()
    shares = {reason: count / total for reason, count in told.most_common()}
    accepted = shares.pop("accepted", 0.0)
    rare = sum(share for share in shares.values() if share < 0.01)
    named = {reason: round(share, 3) for reason, share in shares.items() if share >= 0.01}
    return {"accepted": round(accepted, 3), "refused": {**named, "other": round(rare, 3)}}


if __name__ == "__main__":
    main(*sys.argv[1:])
