"""A real campaign, and how much of the device's time went into training: python -m
tests.benchmarks.campaign [--device gpu] [--minutes M] [--backend B] [--ahead A] [--workers W] ...

Prints one JSON object. A campaign with evolution, gates, hurdles and commits on a new SQLite file
runs for M minutes from the end of its first candidate, then what is under way ends. After it, K of
its completed candidates, evenly spread, train again, alone on the machine and in one process.

per_hour: candidates that ended in the M minutes; `outcomes` says how; steps: of each on average.
training: seconds that workers spent in training steps, over seconds of devices.
training_alone: the same, were each step as fast as it is alone: steps * time of a step alone over
    seconds of devices. The time of a step alone is known for K candidates; the others' is taken to
    be as much shorter than the one in the campaign as it is for those together.
pace: how far seconds of a budget carry in the campaign: the steps done in a second over those
    that the same candidate does alone; lowest, median and highest of K.
start_s: from nothing to the first end.

A GPU trains 6 layers of 256 channels on 256 tokens, batch 32, from `transformer`; population 64,
tournament 12, 3 hurdles from 200 steps on, a time limit of 180 s. The CPU trains 2 layers of 32
channels on 32 tokens, batch 16. `--unit seconds --base 0.5` gives budgets in seconds instead.
`--workers 10 --ahead 0` has ten processes take turns on one GPU.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from statistics import fmean, median
from threading import Timer
from typing import Any, NamedTuple

from sqlalchemy import select

from search.campaign.controller import Controller
from search.config.schema import BudgetSpec, CampaignConfig, FinalSpec, LimitsSpec, SearchSpec
from search.storage.models import Evaluation
from search.storage.store import Store
from workers.data.tokens import load_tokens
from workers.pool.pool import Pool
from workers.spec.outcome import Budget, Job, Outcome
from workers.spec.pool import PoolSpec
from workers.spec.task import ModelSpec, OptimizerSpec, Task, TrainingSpec

MUTATIONS = {"insert": 3, "delete": 1, "delete_insert": 1, "field": 1, "swap": 1, "bank": 1}

ALONE_STEPS = 300
"""Steps that are timed alone; those of a CPU vary more, and are fewer anyway."""


class Ended(NamedTuple):
    """A candidate that has ended."""

    id: int
    at: float
    outcome: str
    steps: int
    train_seconds: float
    seed: int
    dna: str


class Campaign(NamedTuple):
    """What a campaign left behind: its ends in order, and its first and last second."""

    ends: list[Ended]
    began: float
    until: float


def main() -> None:
    arguments = parsed()
    task = task_of(arguments)
    spec = pool_spec(arguments)
    load_tokens(task.data)
    began = time.time()
    campaign = run(config_of(arguments, task, spec), 60 * arguments.minutes)
    alone = trained_alone(arguments, task, sample(campaign.ends, arguments.sample))
    devices = 1 if arguments.device == "gpu" else spec.count or 1
    results = figures(campaign, alone, devices * (campaign.until - campaign.began))
    setting = {name: getattr(arguments, name) for name in ("device", "backend", "ahead", "workers")}
    start = {"start_s": round(campaign.began - began, 1)}
    print(json.dumps({**setting, "minutes": arguments.minutes, **results, **start}))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--backend", default="jax")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--ahead", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--unit", choices=("steps", "seconds"), default="steps")
    parser.add_argument("--base", type=float, help="default: 200 steps on a GPU, 25 on a CPU")
    parser.add_argument("--hurdles", type=int, default=3)
    parser.add_argument("--sample", type=int, default=10, help="candidates that train again, alone")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def task_of(arguments: argparse.Namespace) -> Task:
    if arguments.device == "gpu":
        model = ModelSpec(d_model=256, layers=6, sequence_length=256)
        optimizer = OptimizerSpec(learning_rate=1e-3, warmup_steps=300)
        training = TrainingSpec(batch_size=32, backend=arguments.backend)
    else:
        model = ModelSpec(d_model=32, layers=2, sequence_length=32)
        optimizer = OptimizerSpec(learning_rate=1e-2, warmup_steps=50)
        training = TrainingSpec(batch_size=16, backend=arguments.backend)
    return Task(model=model, optimizer=optimizer, training=training)


def pool_spec(arguments: argparse.Namespace) -> PoolSpec:
    """Several workers share one GPU; on a CPU each has one processor."""
    share = 1 / arguments.workers if arguments.device == "gpu" else 0.0
    cpus = None if arguments.device == "gpu" else 1
    return PoolSpec(
        count=arguments.workers,
        gpus_per_worker=share,
        cpus_per_worker=cpus,
        ahead=arguments.ahead,
        timeout_s=180.0,
    )


def config_of(arguments: argparse.Namespace, task: Task, spec: PoolSpec) -> CampaignConfig:
    base = arguments.base or (200.0 if arguments.device == "gpu" else 25.0)
    search = SearchSpec(
        population=64,
        tournament=12,
        candidates=1_000_000,
        mutations=MUTATIONS,
        budget=BudgetSpec(unit=arguments.unit, base=base, hurdles=arguments.hurdles),
        limits=LimitsSpec(parameters_min=0.7, parameters_max=1.3, flops_max=1.5),
        final=FinalSpec(top=0),
    )
    return CampaignConfig(seed=arguments.seed, task=task, search=search, workers=spec)


def run(config: CampaignConfig, seconds: float) -> Campaign:
    """The campaign, drained when its time is up."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Store.open(f"sqlite:///{folder}/primevo.db") as store,
        Pool(config.task, config.workers) as pool,
    ):
        row = store.create_campaign("benchmark", config.model_dump_json(), config.seed)
        timer: list[Timer] = []

        def watch(progress: Any, heartbeat: Any) -> None:
            """The clock starts with the first end."""
            if not timer and ends_of(store, row.id):
                timer.append(Timer(seconds, controller.drain))
                timer[0].start()

        controller = Controller(store, row, pool, watch)
        try:
            controller.run()
        finally:
            for each in timer:
                each.cancel()
        ends = ends_of(store, row.id)
    return Campaign(ends, ends[0].at, ends[0].at + seconds)


def ends_of(store: Store, campaign: int) -> list[Ended]:
    """Trained candidates in the order in which they ended; copies of known outcomes are none."""
    row = Evaluation
    columns = row.candidate_id, row.finished_at, row.outcome, row.steps, row.train_seconds, row.seed
    query = select(*columns).where(row.worker.is_not(None)).order_by(row.sequence)
    with store.reading() as connection:
        rows = connection.execute(query).all()
    return [Ended(*each, store.dna(campaign, each[0])) for each in rows]


def sample(ends: list[Ended], count: int) -> list[Ended]:
    """Completed candidates, evenly spread over the campaign."""
    completed = [end for end in ends if end.outcome == "completed"]
    every = max(1, len(completed) // max(count, 1))
    return completed[::every][:count]


def trained_alone(
    arguments: argparse.Namespace, task: Task, ends: list[Ended]
) -> list[tuple[Ended, Outcome]]:
    """Each of them trained again while nothing else runs."""
    gpus = 1.0 if arguments.device == "gpu" else 0.0
    cpus = None if gpus else 1
    spec = PoolSpec(count=1, gpus_per_worker=gpus, cpus_per_worker=cpus, ahead=0)
    found = []
    with Pool(task, spec) as pool:
        for end in ends:
            steps = min(end.steps, ALONE_STEPS)
            pool.submit(Job(end.id, end.dna, Budget("steps", steps), end.seed))
            reports = []
            while not reports:
                reports = pool.wait(60)
            found.append((end, reports[0].outcome))
    return [(end, outcome) for end, outcome in found if outcome.step_time_s]


def figures(
    campaign: Campaign, alone: list[tuple[Ended, Outcome]], device_seconds: float
) -> dict[str, Any]:
    counted = [end for end in campaign.ends[1:] if end.at <= campaign.until]
    seconds = campaign.until - campaign.began
    training = sum(end.train_seconds for end in counted) / device_seconds
    paces = [
        (outcome.step_time_s or 0.0) / (end.train_seconds / end.steps) for end, outcome in alone
    ]
    own = sum((outcome.step_time_s or 0.0) * end.steps for end, outcome in alone)
    slowed = own / sum(end.train_seconds for end, _ in alone) if alone else float("nan")
    return {
        "candidates": len(counted),
        "per_hour": round(3600 * len(counted) / seconds),
        "outcomes": dict(Counter(end.outcome for end in counted)),
        "steps": round(fmean(end.steps for end in counted)) if counted else 0,
        "steps_per_second": round(sum(end.steps for end in counted) / seconds, 1),
        "training": round(training, 3),
        "training_alone": round(training * slowed, 3) if alone else None,
        "pace": [round(pick(paces), 3) for pick in (min, median, max)] if alone else [],
    }


if __name__ == "__main__":
    main()
