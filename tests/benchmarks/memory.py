"""Memory of one worker slot while tiny candidates, real ones, pass through it.

`python -m tests.benchmarks.memory [--backend jax] [--device gpu] [--candidates 500] [--minutes 60]`
prints as JSON what the slot's worker held after the 20th candidate, the most that any worker of the
slot held after a later one, and their ratio:

`resident_mb`   its memory;
`device_bytes`  what the framework holds on the device once the candidate has ended (TensorFlow
                tells it of GPUs alone; on a CPU, JAX's arrays are counted);
`process_mb`    its memory on the GPU by nvidia-smi, with what the framework keeps for itself;
`card_mb`       the memory of the first GPU that is in use by anybody.

On a GPU, `card` says what was in use there before the worker started and after it had ended, and
whether nvidia-smi still knows its process. Every 20 candidates the figures so far go to stderr, so
that a run that is cut off leaves them.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from primitives.language.text import render
from tests.benchmarks.children import children
from workers.machine.devices import gpu_count
from workers.pool.crew import SETTLED
from workers.pool.pool import Pool, PoolError
from workers.spec.outcome import Budget, Job, Outcome, Report
from workers.spec.pool import PoolSpec
from workers.spec.task import DataSpec, ModelSpec, Task, TrainingSpec
from workers.training.evaluate import run_job

ENTRY = "tests.benchmarks.memory:train"

GONE_S = 30.0
"""How long the end of the worker's process is awaited."""


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


def process_id(worker: str) -> int:
    return int(worker.partition("/")[2])


def resident_mb(process: int) -> float | None:
    """What a process holds; None once it is gone."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return None
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")] or [""]
    return int(line.split()[1]) / 1024 if line else None


def nvidia_smi(query: str) -> list[list[str]]:
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return [line.split(", ") for line in answer.stdout.splitlines() if line.strip()]


def card_mb() -> float:
    return float(nvidia_smi("--query-gpu=memory.used")[0][0])


def processes_mb() -> dict[int, float | None]:
    """The processes that compute on GPUs, and their memory there, None where it is not told."""
    rows = nvidia_smi("--query-compute-apps=pid,used_memory")
    return {int(pid): float(used) if used.isdigit() else None for pid, used in rows}


@dataclass
class Held:
    """What was seen after each candidate."""

    gpu: bool
    ended: Counter[str] = field(default_factory=Counter)
    workers: dict[int, None] = field(default_factory=dict)
    series: dict[str, list[float]] = field(default_factory=dict)

    def note(self, report: Report) -> None:
        process = process_id(report.worker)
        self.ended[report.outcome.status] += 1
        self.workers[process] = None
        seen = {
            "resident_mb": resident_mb(process),
            "device_bytes": report.outcome.metrics.get("device_bytes"),
            "process_mb": processes_mb().get(process) if self.gpu else None,
            "card_mb": card_mb() if self.gpu else None,
        }
        for name, value in seen.items():
            if value is not None:
                self.series.setdefault(name, []).append(value)

    def told(self) -> dict[str, Any]:
        return {
            "candidates": self.ended.total(), "ended": dict(self.ended),
            "workers": len(self.workers),
            **{name: figures(values) for name, values in self.series.items()},
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


def run(pool: Pool, jobs: Iterator[Job], end: float) -> Iterator[Report]:
    """One job after the other, until all have ended or the time is up."""
    for job in jobs:
        pool.submit(job)
        reports: list[Report] = []
        while not reports and time.monotonic() < end:
            reports = pool.wait(5)
        if not reports:
            return
        yield reports[0]


@contextmanager
def card(held: Held) -> Iterator[dict[str, Any]]:
    """What is in use on the GPU before the worker starts, and when its process is gone."""
    told: dict[str, Any] = {"before_mb": card_mb()} if held.gpu else {}
    yield told
    if not held.gpu:
        return
    end = time.monotonic() + GONE_S
    while time.monotonic() < end and any(map(resident_mb, held.workers)):
        time.sleep(0.1)
    listed = sorted(processes_mb().keys() & held.workers)
    told |= {"after_mb": card_mb(), "workers_still_listed": listed}


def measure(candidates: int, minutes: float, backend: str, gpu: bool) -> dict[str, Any]:
    """The figures of so many candidates, or of as many as end in the time."""
    chosen, held = task(backend), Held(gpu)
    spec = PoolSpec(
        count=1, cpus_per_worker=None if gpu else 1, gpus_per_worker=float(gpu), ahead=0
    )
    dnas = enumerate(islice(children(chosen), candidates))
    jobs = (Job(number, render(dna), Budget("steps", 2), seed=number) for number, dna in dnas)
    started = time.monotonic()
    with card(held) as on_card, Pool(chosen, spec, entry=ENTRY) as pool:
        for report in run(pool, jobs, started + 60 * minutes):
            held.note(report)
            if held.ended.total() % SETTLED == 0:
                print(json.dumps(held.told()), file=sys.stderr, flush=True)
    seconds = round(time.monotonic() - started)
    return {"backend": backend, "gpu": gpu, **held.told(), "card": on_card, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--backend", choices=("tensorflow", "jax"), default="tensorflow")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    asked = parser.parse_args()
    gpu = asked.device == "gpu"
    if gpu and not gpu_count():
        parser.error("--device gpu: nvidia-smi finds no GPU here; leave it out to measure a CPU")
    try:
        print(json.dumps(measure(asked.candidates, asked.minutes, asked.backend, gpu)))
    except PoolError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
