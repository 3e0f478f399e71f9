"""What the worker pool takes for itself: python -m tests.benchmarks.pool [SLEEPING WORKERS]

Prints one JSON object.

bookkeeping_us: CPU time of this process for each job that 16, 256 and 1,000 simulated workers end
    one by one: everything but Ray. Their calls are futures that end when the benchmark says so.
ray: real workers, as many as the argument says (16), that sleep for a second a job; `of_ideal`, the
    jobs that ended over `workers` a second, and the CPU time of this process for each.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any
from unittest import mock

from workers.pool.pool import Pool
from workers.spec.outcome import Budget, Job, Outcome
from workers.spec.pool import Layout, PoolSpec
from workers.spec.task import Task

ENTRIES = "tests.workers.pool_entries"
JOBS = 10_000
ROUNDS = 10
SLEEP_S = 1.0


class SimulatedCluster:
    """Workers that are warm at once and end their jobs in order, when `end_one` is called."""

    session = None

    def __init__(self, workers: int) -> None:
        self.layout = Layout(workers, 1, 0.0)
        self._running: deque[Future[Any]] = deque()

    def start_worker(self, setup: object) -> SimpleNamespace:
        return SimpleNamespace(place="place", prepare="prepare", run="run")

    def call(self, method: str, *arguments: object) -> Future[Any]:
        call: Future[Any] = Future()
        if method == "run":
            self._running.append(call)
        else:
            call.set_result(("simulated", 1))
        return call

    def end_one(self) -> None:
        self._running.popleft().set_result((Outcome("completed"), 0.0))

    def answer(self, call: Future[Any], place: object) -> Any:
        return call.result()

    def memory_share_mb(self, processes: int) -> float:
        return 1.0

    def lost(self) -> None:
        return None

    def kill(self, actor: object) -> None:
        """Nothing is there to kill."""

    leave = mock.Mock()


def bookkeeping_us(workers: int) -> float:
    """Microseconds of CPU time for a job that ends and the next one that starts in its place."""
    cluster = SimulatedCluster(workers)
    spec = PoolSpec(count=workers, jobs_per_worker=10**9)
    with mock.patch("workers.pool.pool.join", return_value=cluster), Pool(Task(), spec) as pool:
        for index in range(workers):
            pool.submit(job(index))
        pool.wait(0.5)
        assert pool._trainers.busy == workers
        began = time.process_time()
        for index in range(JOBS):
            cluster.end_one()
            (_,) = pool.wait(1)
            pool.submit(job(index))
        return round(1e6 * (time.process_time() - began) / JOBS, 1)


def sleeping(workers: int) -> dict[str, float]:
    """Real workers on a real Ray, which are warm before the clock starts."""
    spec = PoolSpec(count=workers, cpus_per_worker=1)
    with Pool(Task(), spec, f"{ENTRIES}:obey", f"{ENTRIES}:warm_up") as pool:
        while len(pool._trainers.idle) < workers:
            run(pool, workers)
        began, cpu = time.monotonic(), time.process_time()
        run(pool, ROUNDS * workers)
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    return {
        "workers": workers,
        "of_ideal": round(ROUNDS * SLEEP_S / seconds, 3),
        "pool_ms": round(1000 * cpu / (ROUNDS * workers), 2),
    }


def run(pool: Pool, count: int) -> None:
    """Keeps all workers busy until so many jobs have ended."""
    sent = min(count, pool.capacity())
    for index in range(sent):
        pool.submit(job(index))
    ended = 0
    while ended < count:
        for _ in pool.wait(60):
            ended += 1
            if sent < count:
                pool.submit(job(sent))
                sent += 1


def job(index: int) -> Job:
    return Job(index, f"sleep {SLEEP_S}", Budget("steps", 1), seed=0)


def main() -> None:
    workers = int(sys.argv[1]) if len(sys.argv) > 1 else 16
    simulated = {str(count): bookkeeping_us(count) for count in (16, 256, 1000)}
    print(json.dumps({"bookkeeping_us": simulated, "ray": sleeping(workers)}))


if __name__ == "__main__":
    main()
