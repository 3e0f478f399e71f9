"""Whether a short run tells more of a program that starts from its parent's weights:

    python -m tests.benchmarks.inherited sqlite:///DATABASE CAMPAIGN [CHILDREN]

Takes the first CHILDREN distinct children of a recorded campaign that completed, with their
parents, and trains them again on the campaign's task. Each child gets five runs, of which those
of `parent` and `lineage` take weights over where names and shapes agree, and have fresh ones
elsewhere:

scratch: SHORT steps.
twice: twice as many.
parent: SHORT steps from the weights that its parent has after SHORT steps from scratch.
lineage: SHORT steps from the weights that its parent has after such a run of its own, and so on
    back to the seed program: what a search would do in which children inherit.
full: FULL steps from scratch.

Runs of one kind have a seed of their own, so that no two kinds share start values or the order of
the text.

Prints one JSON object: Kendall's tau (tau-b) between the validation losses of each kind of short
run and those of the full one, and how far it is above that from scratch, with 95 % intervals by
bootstrap over the children; how many parents the children have; the share of a child's weights that
came from its parent; the losses.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from primitives.language.dna import DNA
from search.campaign.queries import stored_program
from search.config.plugins import stored_config
from search.report import queries
from search.storage.store import Store
from workers.machine.backends import configure
from workers.machine.devices import Layout
from workers.spec.outcome import Budget, Outcome
from workers.spec.task import Task
from workers.training.run import begun

SHORT, FULL = 100, 800
SHORT_SEED, PARENT_SEED, FULL_SEED, LINEAGE_SEED, TWICE_SEED = 0, 1, 2, 3, 4
RESAMPLES = 2000

Weights = Mapping[str, Any]
Loss = float | None
Programs = Callable[[int], DNA]
Parents = Mapping[int, int | None]
KINDS = ("scratch", "twice", "parent", "lineage")


class Trained:
    """Trains programs and keeps what they have learned, for one task."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._alone: dict[int, Weights] = {}
        self._descended: dict[int, tuple[Loss, Weights]] = {}

    def alone(self, id: int, dna: DNA) -> Weights:
        """What a candidate has learned from scratch."""
        if id not in self._alone:
            self._alone[id] = self.run(dna, SHORT, PARENT_SEED)[1]
        return self._alone[id]

    def descended(self, id: int, programs: Programs, parents: Parents) -> tuple[Loss, Weights]:
        """The loss of a candidate and what it has learned after all of its ancestors."""
        if id not in self._descended:
            parent = parents[id]
            start = None if parent is None else self.descended(parent, programs, parents)[1]
            self._descended[id] = self.run(programs(id), SHORT, LINEAGE_SEED, start)[:2]
        return self._descended[id]

    def run(
        self, dna: DNA, steps: int, seed: int, start: Weights | None = None
    ) -> tuple[Loss, Weights, float]:
        """The validation loss (None unless the run completed), the trained weights by name, and the
        share of numbers that were taken from `start`."""
        run = begun(dna, self._task, Budget("steps", steps), seed)
        assert not isinstance(run, Outcome), run.reason
        run.get_ready(None)
        names, values, taken = run._shape.names, list(run.values), 0
        for place, name in enumerate(names):
            found = None if start is None else start.get(name)
            if found is not None and found.shape == values[place].shape:
                values[place] = found
                taken += found.size
        share = taken / sum(value.size for value in values)
        run.values = values
        run.start(time.perf_counter())
        status, _ = run.train()
        if status != "completed":
            return None, {}, share
        weights = dict(zip(names, map(np.asarray, run.engine.weights()), strict=True))
        return run.curve[-1].val_loss, weights, share


def taus(short: Sequence[float], full: Sequence[float], places: Any) -> float:
    """Kendall's tau-b of two rankings, of a resample with replacement."""
    a, b = (np.sign(x[:, None] - x[None, :]) for x in (np.asarray(short), np.asarray(full)))
    a, b = (x[np.ix_(places, places)] for x in (a, b))
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def agreement(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Tau of each kind of short run with the full one, and how far it is above `scratch`."""
    losses = {kind: [row[kind] for row in rows] for kind in (*KINDS, "full")}
    rng = np.random.default_rng(0)
    whole = np.arange(len(rows))
    resamples = [rng.choice(whole, len(whole)) for _ in range(RESAMPLES)]

    def told(*kinds: str) -> dict[str, float]:
        """Of one kind, or of one less another."""
        drawn = [[taus(losses[kind], losses["full"], p) for kind in kinds] for p in resamples]
        first, *rest = zip(*drawn, strict=True)
        values = np.subtract(first, rest[0]) if rest else np.asarray(first)
        low, high = np.percentile(values, (2.5, 97.5))
        ends = [taus(losses[kind], losses["full"], whole) for kind in kinds]
        centre = ends[0] - sum(ends[1:])
        return {"tau": round(centre, 3), "low": round(low, 3), "high": round(high, 3)}

    return {
        **{kind: told(kind) for kind in KINDS},
        **{f"{kind} less scratch": told(kind, "scratch") for kind in KINDS[1:]},
    }


def main(url: str, name: str, children: str = "48") -> None:
    with Store.open(url, create=False) as store:
        campaign = store.campaign(name)
        task = stored_config(campaign.config, name).task
        runs = queries.runs(store, name)
        programs = {run.id: stored_program(store, campaign, run.id) for run in runs}
    configure(task.training.backend, Layout(1, 1, 0.0), None)
    parents = {run.id: run.parent_id for run in runs}
    distinct = [run for run in runs if run.duplicate_of is None and run.fitness is not None]
    trained, rows = Trained(task), list[dict[str, Any]]()
    for run in distinct[1 : int(children) + 1]:
        dna, parent = programs[run.id], run.parent_id
        assert parent is not None
        start = trained.alone(parent, programs[parent])
        inherited, _, share = trained.run(dna, SHORT, SHORT_SEED, start)
        row = {
            "id": run.id,
            "share": share,
            "scratch": trained.run(dna, SHORT, SHORT_SEED)[0],
            "twice": trained.run(dna, 2 * SHORT, TWICE_SEED)[0],
            "parent": inherited,
            "lineage": trained.descended(run.id, programs.__getitem__, parents)[0],
            "full": trained.run(dna, FULL, FULL_SEED)[0],
        }
        print(json.dumps(row), file=sys.stderr, flush=True)
        if all(row[kind] is not None for kind in (*KINDS, "full")):
            rows.append(row)
    result = {
        "children": len(rows), "short": SHORT, "full": FULL,
        "parents": len({parents[row["id"]] for row in rows}),
        "share": round(fmean(row["share"] for row in rows), 3), **agreement(rows), "losses": rows,
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
