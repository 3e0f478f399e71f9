"""What a candidate costs beside its training: python -m tests.benchmarks.worker

Prints one JSON object.

warm_overhead_s: seconds from handing a job to the pool to its report, less the seconds of training,
    on one warm CPU worker: type check, start values, tracing, compiling, scoring, transport. The
    median over ten programs that complete, each with a graph that the worker has not seen before:
    children of the seed programs, at the quickstart's size.
cold_start_s: seconds from making a pool (Ray not yet running) to the first report, less the seconds
    of training.
"""

from __future__ import annotations

import itertools
import json
import random
import statistics
import time
from collections.abc import Iterator

from primitives.graph.build import Graph, build
from primitives.language.text import render
from primitives.programs.seeds import load_seed
from search.evolution.mutation import mutate
from tests.reference.random_programs import DENSE_SEEDS
from workers.data.tokens import load_tokens
from workers.pool.pool import Pool
from workers.spec.outcome import Budget, Job
from workers.spec.pool import PoolSpec
from workers.spec.task import ModelSpec, Task, TrainingSpec

PROGRAMS = 10
TASK = Task(model=ModelSpec(d_model=32, sequence_length=32), training=TrainingSpec(batch_size=16))


def main() -> None:
    load_tokens(TASK.data)
    began = time.perf_counter()
    with Pool(TASK, PoolSpec(count=1)) as pool:
        cold = _overhead(pool, 0, render(load_seed("transformer", TASK.model.d_model)), began)
        warm: list[float] = []
        for text in _programs():
            seconds = _overhead(pool, len(warm) + 1, text, time.perf_counter())
            if seconds is not None:
                warm.append(seconds)
            if len(warm) == PROGRAMS:
                break
    results = {
        "warm_overhead_s": statistics.median(warm),
        "warm_overhead_max_s": max(warm),
        "cold_start_s": cold,
    }
    print(json.dumps({name: round(value, 3) for name, value in results.items()}))


def _overhead(pool: Pool, number: int, text: str, began: float) -> float | None:
    """Seconds from `began` to the report, less those of training; None if it did not complete."""
    pool.submit(Job(number, text, Budget("steps", 20), seed=0))
    (report,) = pool.wait(timeout_s=120)
    if report.outcome.status != "completed":
        return None
    return time.perf_counter() - began - report.outcome.train_seconds


def _programs() -> Iterator[str]:
    """Children of the dense seed programs, each with a graph of its own."""
    rng = random.Random(0)
    parents = [load_seed(name, TASK.model.d_model) for name in DENSE_SEEDS]
    seen = {graph.hash for graph in map(build, parents) if isinstance(graph, Graph)}
    for parent in itertools.cycle(parents):
        child = mutate(parent, rng)[0]
        graph = build(child)
        if isinstance(graph, Graph) and graph.hash not in seen:
            seen.add(graph.hash)
            yield render(child)


if __name__ == "__main__":
    main()
