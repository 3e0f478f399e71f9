"""Memory of one worker slot while tiny candidates, real ones, pass through it.

`python -m tests.benchmarks.memory --candidates 500` prints as JSON what the slot's worker held
after the 20th candidate, the most that any worker of the slot held after a later one, and their
ratio.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import islice
from pathlib import Path

from primitives.language.text import render
from tests.benchmarks.children import children
from workers.pool.crew import SETTLED
from workers.pool.pool import Pool
from workers.spec.outcome import Budget, Job
from workers.spec.pool import PoolSpec
from workers.spec.task import DataSpec, ModelSpec, Task, TrainingSpec

TASK = Task(
    data=DataSpec(max_documents=40),
    model=ModelSpec(d_model=16, layers=1, sequence_length=16),
    training=TrainingSpec(batch_size=4, eval_batches=2),
)


def held_mb(worker: str) -> float | None:
    """What a worker holds; None once it has been replaced."""
    try:
        status = Path(f"/proc/{worker.partition('/')[2]}/status").read_text()
    except OSError:
        return None
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")] or [""]
    return int(line.split()[1]) / 1024 if line else None


def measure(candidates: int, minutes: float) -> dict[str, object]:
    """Memory after each candidate, in MB, until all have ended or the time is up."""
    held: list[float] = []
    workers: set[str] = set()
    started, end = time.monotonic(), time.monotonic() + 60 * minutes
    with Pool(TASK, PoolSpec(count=1, cpus_per_worker=1, ahead=0)) as pool:
        for number, dna in enumerate(islice(children(TASK), candidates)):
            pool.submit(Job(number, render(dna), Budget("steps", 2), seed=number))
            reports = []
            while not reports and time.monotonic() < end:
                reports = pool.wait(5)
            if not reports:
                break
            workers.add(reports[0].worker)
            if (now := held_mb(reports[0].worker)) is not None:
                held.append(now)
    after, later = held[SETTLED - 1], held[SETTLED:]
    return {
        "candidates": len(held), "workers": len(workers), "after_20_mb": round(after),
        "most_mb": round(max(later)), "ratio": round(max(later) / after, 2),
        "every_20th_mb": [round(value) for value in held[SETTLED - 1 :: SETTLED]],
        "seconds": round(time.monotonic() - started),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=60)
    options = parser.parse_args()
    print(json.dumps(measure(options.candidates, options.minutes)))


if __name__ == "__main__":
    main()
