"""Memory of one worker slot while tiny candidates, real ones, pass through it.

`python -m tests.benchmarks.memory [--backend jax] [--device gpu] [--candidates 500]` prints as JSON
what the slot's worker held after the 20th candidate, the most that any worker of the slot held
after a later one, and their ratio: resident memory in MB, and `device_bytes`, what the framework
holds on the device once the candidate has ended (TensorFlow tells it of GPUs alone; on a CPU, JAX's
arrays are counted).
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from primitives.language.text import render
from tests.benchmarks.children import children
from workers.pool.crew import SETTLED
from workers.pool.pool import Pool
from workers.spec.outcome import Budget, Job, Outcome
from workers.spec.pool import PoolSpec
from workers.spec.task import DataSpec, ModelSpec, Task, TrainingSpec
from workers.training.evaluate import run_job


def task(backend: str) -> Task:
    return Task(
        data=DataSpec(max_documents=40),
        model=ModelSpec(d_model=16, layers=1, sequence_length=16),
        training=TrainingSpec(batch_size=4, eval_batches=2, backend=backend),
    )


def train(job: Job, task: Task) -> Outcome:
    """A worker's entry: the outcome, with what the device holds when all is over."""
    outcome = run_job(job, task)
    gc.collect()
    held = device_bytes(task.training.backend)
    return outcome if held is None else replace(outcome, metrics={"device_bytes": float(held)})


def device_bytes(backend: str) -> int | None:
    """Of this process; None where the framework does not tell."""
    if backend == "jax":
        import jax

        stats = jax.local_devices()[0].memory_stats()
        return stats["bytes_in_use"] if stats else sum(each.nbytes for each in jax.live_arrays())
    import tensorflow as tf

    if not tf.config.get_visible_devices("GPU"):
        return None
    return int(tf.config.experimental.get_memory_info("GPU:0")["current"])


def held_mb(worker: str) -> float | None:
    """What a worker holds; None once it has been replaced."""
    try:
        status = Path(f"/proc/{worker.partition('/')[2]}/status").read_text()
    except OSError:
        return None
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")] or [""]
    return int(line.split()[1]) / 1024 if line else None


def measure(candidates: int, minutes: float, backend: str, gpu: bool) -> dict[str, Any]:
    """Memory after each candidate, in MB, until all have ended or the time is up."""
    held: list[float] = []
    on_device: list[float] = []
    workers: set[str] = set()
    statuses: dict[str, int] = {}
    chosen = task(backend)
    spec = PoolSpec(
        count=1, cpus_per_worker=None if gpu else 1, gpus_per_worker=float(gpu), ahead=0
    )
    started, end = time.monotonic(), time.monotonic() + 60 * minutes
    with Pool(chosen, spec, entry="tests.benchmarks.memory:train") as pool:
        for number, dna in enumerate(islice(children(chosen), candidates)):
            pool.submit(Job(number, render(dna), Budget("steps", 2), seed=number))
            reports = []
            while not reports and time.monotonic() < end:
                reports = pool.wait(5)
            if not reports:
                break
            [report] = reports
            workers.add(report.worker)
            status = report.outcome.status
            statuses[status] = statuses.get(status, 0) + 1
            if (now := held_mb(report.worker)) is not None:
                held.append(now)
            if (bytes_ := report.outcome.metrics.get("device_bytes")) is not None:
                on_device.append(bytes_)
    return {
        "backend": backend, "gpu": gpu, "candidates": sum(statuses.values()), "ended": statuses,
        "workers": len(workers), "resident_mb": figures(held), "device_bytes": figures(on_device),
        "seconds": round(time.monotonic() - started),
    }  # fmt: skip


def figures(held: list[float]) -> dict[str, Any] | None:
    if len(held) <= SETTLED:
        return None
    after, later = held[SETTLED - 1], held[SETTLED:]
    return {
        "after_20": round(after), "most": round(max(later)),
        "ratio": round(max(later) / after, 2) if after else None,
        "every_20th": [round(value) for value in held[SETTLED - 1 :: SETTLED]],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--backend", choices=("tensorflow", "jax"), default="tensorflow")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    asked = parser.parse_args()
    found = measure(asked.candidates, asked.minutes, asked.backend, asked.device == "gpu")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
