"""Candidates an hour at a fixed budget of training, against Ray Tune running the same trials:
python -m tests.benchmarks.throughput [--device gpu] [--seconds 10] [--candidates N] [--workers W]

Prints one JSON object. The two run one after the other, on the same programs (children of the
transformer seed), start values, batches, `Budget("seconds", S)` and share of the machine:

ours: the campaign's own machinery. The controller runs a campaign on a new SQLite file, with the
    list for its seed programs, on a real Pool. Commits and heartbeats are in it, mutation and gates
    are not (`tests.benchmarks.scaling` times those).
tune: `tune.Tuner` as it comes, which starts a process for each trial. A trial is a function that
    sets the framework up as a worker does (same threads, same XLA flags), calls
    `workers.training.evaluate.evaluate` once, and reports.

{ours,tune}_per_hour: candidates over the time from the W-th end to the last: the first W, one for
    each worker, are a warm-up beside the N that count. A candidate that does not complete (it
    diverged, say) takes its time and is not counted; {ours,tune}_completed says how many did.
{ours,tune}_start_s: what that leaves out: from nothing, Ray not running, to the W-th end, less the
    S seconds of training.
ratio: ours over tune. bound_per_hour: W * 3600 / S, as if workers did nothing but train;
of_bound: ours over that. {ours,tune}_training: the share of the workers' time in which they trained
    (candidates that did not complete included), of which the bound would be 1.

The CPU trains 2 layers of 64 channels on 64 tokens, batch 16; a GPU 6 layers of 256 channels on 256
tokens, batch 32. Needs the packages of `ray[tune]`.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import select

from primitives.language.text import parse, render
from search.campaign.controller import Controller
from search.campaign.proposal import derive
from search.config.schema import BudgetSpec, CampaignConfig, FinalSpec, SearchSpec
from search.storage.models import Evaluation
from search.storage.store import Store
from tests.benchmarks.children import children
from tests.benchmarks.first_step import TASKS
from workers.data.tokens import load_tokens
from workers.machine.backends import configure
from workers.machine.devices import Layout, cpu_count, gpu_count
from workers.pool.pool import Pool
from workers.spec.outcome import Budget
from workers.spec.pool import PoolSpec, layout
from workers.spec.task import Task
from workers.training.evaluate import evaluate

SEED = 0

Ends = list[tuple[float, str, float]]
"""Each trial's end, in seconds since the epoch, its status, and its seconds of training; in
order."""


@dataclass(frozen=True, slots=True)
class Trials:
    """What both sides run, and on what."""

    texts: list[str]
    task: Task
    seconds: float
    spec: PoolSpec
    layout: Layout


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=TASKS, default="cpu")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--candidates", type=int, help="those that count; default: 4 * workers")
    parser.add_argument("--workers", type=int, help="default: one for each GPU, or processor")
    arguments = parser.parse_args()
    task, spec = TASKS[arguments.device], pool_spec(arguments.device, arguments.workers)
    plan = layout(spec, cpu_count(), gpu_count())
    count = plan.count + (arguments.candidates or 4 * plan.count)
    texts = [render(dna) for dna in islice(children(task), count)]
    trials = Trials(texts, task, arguments.seconds, spec, plan)
    load_tokens(task.data)
    ours, tune = measured("ours", run_ours, trials), measured("tune", run_tune, trials)
    bound = plan.count * 3600 / trials.seconds
    setting = {"workers": plan.count, "candidates": count - plan.count, "seconds": trials.seconds}
    results = {
        **setting,
        **ours,
        **tune,
        "ratio": ours["ours_per_hour"] / tune["tune_per_hour"],
        "bound_per_hour": bound,
        "of_bound": ours["ours_per_hour"] / bound,
    }
    rounded = {name: round(value, 3) for name, value in results.items()}
    print(json.dumps({"device": arguments.device, **rounded}))


def pool_spec(device: str, workers: int | None) -> PoolSpec:
    """More workers than GPUs share them evenly."""
    if device == "cpu":
        return PoolSpec(count=workers, gpus_per_worker=0.0)
    share = min(1.0, gpu_count() / workers) if workers else None
    return PoolSpec(count=workers, gpus_per_worker=share)


def measured(name: str, run: Callable[[Trials, str], Ends], trials: Trials) -> dict[str, float]:
    workers = trials.layout.count
    began = time.time()
    with tempfile.TemporaryDirectory() as folder:
        ends = run(trials, folder)
    assert len(ends) == len(trials.texts), f"{len(ends)} of {len(trials.texts)} ended"
    warm = ends[workers - 1][0]
    completed = [status for _, status, _ in ends[workers:]].count("completed")
    elapsed = ends[-1][0] - warm
    results = {
        f"{name}_per_hour": 3600 * completed / elapsed,
        f"{name}_training": sum(trained for *_, trained in ends[workers:]) / (workers * elapsed),
        f"{name}_completed": completed,
        f"{name}_start_s": warm - began - trials.seconds,
    }
    print(results, file=sys.stderr)
    return results


def run_ours(trials: Trials, folder: str) -> Ends:
    """A campaign whose seed programs are the trials; its ends as recorded."""
    files = [Path(folder, f"{number}.txt") for number, _ in enumerate(trials.texts)]
    for file, text in zip(files, trials.texts, strict=True):
        file.write_text(text)
    search = SearchSpec(
        seeds=tuple(map(str, files)),
        candidates=len(files),
        budget=BudgetSpec(unit="seconds", base=trials.seconds),
        final=FinalSpec(top=0),
    )
    config = CampaignConfig(task=trials.task, search=search, workers=trials.spec)
    url = f"sqlite:///{folder}/primevo.db"
    with Store.open(url) as store, Pool(trials.task, trials.spec) as pool:
        row = store.create_campaign("throughput", config.model_dump_json(), SEED)
        Controller(store, row, pool).run()
        with store.reading() as connection:
            columns = Evaluation.finished_at, Evaluation.outcome, Evaluation.train_seconds
            ends = select(*columns).order_by(Evaluation.sequence)
            return [tuple(row) for row in connection.execute(ends)]


def run_tune(trials: Trials, folder: str) -> Ends:
    """A grid search over the trials' numbers; its ends as Tune's loop sees them."""
    import ray
    from ray import tune

    ends: Ends = []

    class Watch(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            last = trial.last_result
            ends.append((time.time(), last["status"], last["trained"]))

    def train(config: dict[str, int]) -> None:
        number = config["number"]
        configure(trials.task.training.backend, trials.layout, trials.spec.memory_limit_mb)
        dna, budget = parse(trials.texts[number - 1]), Budget("seconds", trials.seconds)
        outcome = evaluate(dna, trials.task, budget, derive(SEED, number))
        tune.report(
            {
                "status": outcome.status,
                "val_loss": outcome.val_loss,
                "trained": outcome.train_seconds,
            }
        )

    plan = trials.layout
    ray.init(
        address="local",
        num_cpus=plan.count * plan.cpus,
        num_gpus=gpu_count() if plan.gpus else 0,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=folder,
    )
    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": plan.cpus, "gpu": plan.gpus}),
        param_space={"number": tune.grid_search([*range(1, len(trials.texts) + 1)])},
        run_config=tune.RunConfig(storage_path=folder, verbose=0, callbacks=[Watch()]),
    )
    with redirect_stdout(sys.stderr):
        grid = tuner.fit()
    ray.shutdown()
    assert not grid.errors, grid.errors
    return ends


if __name__ == "__main__":
    main()
