"""How fast campaigns improve with one setting of the search or another:

    python -m tests.benchmarks.improvement DATABASE SEEDS CANDIDATES ARM ...

An arm is a name of PARTS, or several joined by `+`, which changes the config `search`. For each of
SEEDS campaign seeds and each arm, a campaign `ARM-SEED` of so many candidates is run in this
process on one core, from the vanilla Transformer alone; of those that the database has, the first
candidates are read. A program is trained once, with one seed, whichever campaigns it comes up in,
so that arms differ by what they propose and not by luck in training. Budgets are in steps, so that
a loaded machine changes nothing.

Prints one JSON object. For each arm: `best`, the lowest validation loss in bits per byte, one for
each seed; `area`, the mean over the campaign's candidates of the lowest so far; `refused`, children
refused for each one recorded; and its mutations over all its campaigns. For each arm but the first:
the median over the seeds of `best` and `area` less those of the first arm, and the 95 % interval of
the mean difference by bootstrap over the seeds (pairs). Below zero is better than the first arm.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import astuple, replace
from random import Random
from statistics import fmean, median
from typing import Any

from sqlalchemy import select

from primitives.graph.build import Graph
from primitives.language.text import parse
from search.campaign.controller import Controller
from search.config.schema import BudgetSpec, CampaignConfig, FinalSpec, LimitsSpec, SearchSpec
from search.errors import NotFoundError
from search.evolution.mutation import DEFAULT_PROBABILITIES
from search.report import queries
from search.report.data import MutationRow, mutation_rows, together
from search.report.queries import Run
from search.storage.models import Candidate, Evaluation
from search.storage.store import CampaignRow, Store
from tests.search.instant import InstantEvaluator
from workers.machine.backends import configure
from workers.machine.devices import Layout
from workers.spec.fit import task_graph
from workers.spec.outcome import Job, Measurement, Outcome
from workers.spec.task import DataSpec, ModelSpec, OptimizerSpec, Task, TrainingSpec
from workers.training.evaluate import run_job

STEPS = 100
RESAMPLES = 10_000
TASK = Task(
    data=DataSpec(source="sotu", tokenizer="bytes"),
    model=ModelSpec(d_model=16, layers=1, sequence_length=16),
    optimizer=OptimizerSpec(name="adamw", learning_rate=1e-2, warmup_steps=20),
    training=TrainingSpec(batch_size=16, eval_batches=16),
)
SEARCH: dict[str, Any] = {
    "seeds": ("transformer",),
    "population": 16,
    "tournament": 5,
    "budget": BudgetSpec(unit="steps", base=STEPS),
    "limits": LimitsSpec(flops_max=2.0, step_time_max=None),
    "final": FinalSpec(top=0),
}
PARTS: dict[str, dict[str, Any]] = {
    "primer": {"mutations": DEFAULT_PROBABILITIES},
    "fitting": {
        "mutations": {
            "insert_fitting": 3, "delete": 1, "delete_insert": 1, "field_fitting": 1, "swap": 1,
            "bank": 1,
        }
    },
}  # fmt: skip


class Trained:
    """What programs gave, by their hash: each is trained once."""

    def __init__(self, store: Store) -> None:
        columns = Candidate.hash, Evaluation.outcome, Evaluation.val_loss, Evaluation.val_bpb
        statement = (
            select(*columns)
            .join(Candidate, (Candidate.campaign_id == Evaluation.campaign_id)
                  & (Candidate.id == Evaluation.candidate_id))
            .where(Evaluation.worker.is_not(None))
        )  # fmt: skip
        with store.reading() as connection:
            self._known = {
                row.hash: _outcome(row.outcome, row.val_loss, row.val_bpb)
                for row in connection.execute(statement)
            }

    def __call__(self, job: Job) -> Outcome:
        graph = task_graph(parse(job.dna), TASK)
        assert isinstance(graph, Graph)
        if graph.hash not in self._known:
            made = run_job(replace(job, seed=0), TASK)
            self._known[graph.hash] = _outcome(made.status, made.val_loss, made.val_bpb)
        return self._known[graph.hash]


def _outcome(status: Any, loss: float | None, bpb: float | None) -> Outcome:
    curve = () if loss is None else (Measurement(STEPS, STEPS, 0.0, loss),)
    return Outcome(status, val_loss=loss, val_bpb=bpb, curve=curve)


def campaign(store: Store, arm: str, seed: int, candidates: int, trained: Trained) -> list[Run]:
    """The candidates of one campaign, run or gone on with as far as it takes."""
    name = f"{arm}-{seed}"
    row = _campaign(store, name, arm, seed, candidates)
    Controller(store, row, InstantEvaluator(outcome=trained)).run()
    return queries.runs(store, name)[:candidates]


def _campaign(store: Store, name: str, arm: str, seed: int, candidates: int) -> CampaignRow:
    try:
        return store.campaign(name)
    except NotFoundError:
        changed: dict[str, Any] = {"candidates": candidates}
        for part in arm.split("+"):
            changed |= PARTS[part]
        config = CampaignConfig(task=TASK, search=SearchSpec(**{**SEARCH, **changed}))
        return store.create_campaign(name, config.model_dump_json(), seed)


def so_far(runs: Sequence[Run]) -> list[float]:
    """The lowest score up to each ending; what has no score changes nothing."""
    found, best = [], math.inf
    for run in runs:
        if run.fitness is not None and run.val_bpb is not None:
            best = min(best, run.val_bpb)
        found.append(best)
    return found


def row_of(campaigns: Sequence[list[Run]]) -> dict[str, Any]:
    lines = [so_far(runs) for runs in campaigns]
    runs = together(campaigns)
    refused = sum(sum(run.rejections.values()) for run in runs)
    return {
        "best": [round(line[-1], 4) for line in lines],
        "area": [round(fmean(line), 4) for line in lines],
        "refused": round(refused / len(runs), 2),
        "duplicates": sum(run.duplicate_of is not None for run in runs),
        "mutations": [_mutation(row) for row in mutation_rows(runs)],
    }


def _mutation(row: MutationRow) -> dict[str, Any]:
    gain = None if row.gain is None else [round(value, 4) for value in astuple(row.gain)]
    return {**row._asdict(), "gain": gain}


def against(arm: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    """An arm less the first one, in bits per byte."""
    found = {}
    for field in ("best", "area"):
        differences = [a - b for a, b in zip(arm[field], first[field], strict=True)]
        low, high = bootstrap(differences)
        found[field] = {
            "median": round(median(differences), 4),
            "mean": round(fmean(differences), 4),
            "low": round(low, 4),
            "high": round(high, 4),
        }
    return found


def bootstrap(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a mean by resampling (Efron's percentiles)."""
    rng = Random(0)
    means = sorted(fmean(rng.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES) - 1]


def main(database: str, seeds: str, candidates: str, *arms: str) -> None:
    configure(TASK.training.backend, Layout(1, 1, 0.0), None)
    campaigns: dict[str, list[list[Run]]] = {arm: [] for arm in arms}
    with Store.open(f"sqlite:///{database}") as store:
        trained = Trained(store)
        for seed in range(int(seeds)):
            for arm in arms:
                campaigns[arm].append(campaign(store, arm, seed, int(candidates), trained))
                print(arm, seed, round(so_far(campaigns[arm][-1])[-1], 4), file=sys.stderr)
    rows = {arm: row_of(runs) for arm, runs in campaigns.items()}
    first = rows[arms[0]]
    for row in list(rows.values())[1:]:
        row["against_first"] = against(row, first)
    print(json.dumps({"candidates": int(candidates), "steps": STEPS, "arms": rows}, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
