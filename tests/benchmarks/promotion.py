"""What pausing and promoting saves: python -m tests.benchmarks.promotion [SEED ...]

Runs the same small campaign with each rule for hurdles, and prints one JSON object a campaign. One
process trains all candidates, on the CPU: two layers of 32 channels, batches of 8 times 32 bytes of
`sotu`, AdamW, 120 candidates from the vanilla Transformer, population 24, four hurdles at 10, 30,
70 and 150 of 310 steps.

steps: of training in the search, all stages counted, over those of training each in full.
went_on: the share of the children that went on from each hurdle; 0.5 is meant.
in_full, meant: the shares of children that were trained in full, and that should be.
best: the lowest validation loss of the search, in bits per byte, and whose; seed_bpb: the seed's.
final: the mean test loss of the candidate that is offered less the seed program's, two fresh runs
    each.
cpu_s: CPU seconds of the search: training, compilation, scores, and the controller.
setup_s: what trained children spent on compilation and scores, by the clock.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import deque
from statistics import mean
from typing import Any

from sqlalchemy import func, select

from search.campaign import queries
from search.campaign.controller import Controller
from search.config.schema import BudgetSpec, CampaignConfig, FinalSpec, LimitsSpec, SearchSpec
from search.evolution.hurdles import Rule
from search.storage.models import Evaluation
from search.storage.store import Store
from workers.spec.outcome import Job, Report
from workers.spec.pool import PoolSpec
from workers.spec.task import ModelSpec, OptimizerSpec, Task, TrainingSpec
from workers.training.evaluate import run_job

RULES: tuple[Rule, ...] = ("top", "promote")


class Here:
    """An evaluator that trains one job at a time in this process."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._jobs: deque[Job] = deque()
        self.searching_s = 0.0

    def capacity(self) -> int:
        return 1

    def submit(self, job: Job) -> None:
        self._jobs.append(job)

    def wait(self, timeout_s: float) -> list[Report]:
        reports = [Report(job, run_job(job, self._task), "here") for job in self._jobs]
        if not any(job.test for job in self._jobs):
            self.searching_s = time.process_time()
        self._jobs.clear()
        return reports

    def why_waiting(self) -> str | None:
        return None


def config_of(rule: Rule, weights: str, candidates: int) -> CampaignConfig:
    return CampaignConfig(
        task=Task(
            model=ModelSpec(d_model=32, layers=2, sequence_length=32),
            optimizer=OptimizerSpec(learning_rate=1e-2, warmup_steps=30),
            training=TrainingSpec(batch_size=8, eval_batches=16),
        ),
        search=SearchSpec(
            population=24,
            tournament=6,
            candidates=candidates,
            mutations={"insert_fitting": 3, "delete": 1, "delete_insert": 1, "field_fitting": 1,
                       "swap": 1, "bank": 1},
            budget=BudgetSpec(unit="steps", base=10, hurdles=4, rule=rule),
            limits=LimitsSpec(step_time_max=None),
            final=FinalSpec(top=1, seeds=2),
        ),
        workers=PoolSpec(count=1),
        weights=weights,
    )  # fmt: skip


def campaign(rule: Rule, seed: int, candidates: int = 120) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, Store.open(f"sqlite:///{folder}/db") as store:
        config = config_of(rule, f"{folder}/weights", candidates)
        row = store.create_campaign("one", config.model_dump_json(), seed)
        evaluator, began = Here(config.task), time.process_time()
        shown = Controller(store, row, evaluator).run()
        rows = queries.summary(store, "one").final
        steps, setup_s = _sums(store)
    (of_seed,) = (each for each in rows if each.is_seed)
    offered = [each for each in rows if not each.is_seed]
    full = config.search.budget.full * shown.trained
    assert shown.best is not None and shown.seed is not None and shown.in_full is not None
    pairs = zip(shown.went_on, shown.reached, strict=True)
    return {
        "rule": rule,
        "seed": seed,
        "trained": shown.trained,
        "steps": round(steps / full, 4),
        "times_fewer": round(full / steps, 2),
        "reached": shown.reached,
        "went_on": [round(on / there, 3) if there else None for on, there in pairs],
        "in_full": round(shown.in_full[0], 4),
        "meant": round(shown.in_full[1], 4),
        "best": (shown.best.id, round(shown.best.val_bpb or 0.0, 4)),
        "seed_bpb": round(shown.seed.val_bpb or 0.0, 4),
        "final": round(mean(each.bpb for each in offered) - of_seed.bpb, 4) if offered else None,
        "cpu_s": round(evaluator.searching_s - began, 1),
        "setup_s": round(setup_s, 1),
    }  # fmt: skip


def _sums(store: Store) -> tuple[int, float]:
    """Steps and seconds of setting up, of all candidates that were trained in the search. The last
    row of a run that was paused tells of all of it."""
    statement = select(func.sum(Evaluation.steps), func.sum(Evaluation.setup_seconds)).where(
        Evaluation.kind == "search", Evaluation.worker.is_not(None)
    )
    with store.reading() as connection:
        steps, seconds = connection.execute(statement).one()
    return int(steps), float(seconds)


def main(seeds: list[int]) -> None:
    for seed in seeds:
        for rule in RULES:
            print(json.dumps(campaign(rule, seed)), flush=True)


if __name__ == "__main__":
    main([int(each) for each in sys.argv[1:]] or [0, 1])
