"""What the controller leaves of many workers' time: python -m tests.benchmarks.scaling

Prints one JSON object: for 1, 2, 16, 256 and 1,000 simulated workers, `of_ideal`, the candidates
that ended over `workers` a second. An evaluation takes 1 s, whatever the program; everything else
is real: the controller proposes mutants through its gates, that on behaviour left out, and commits
each step to a SQLite file. `ungated` leaves out that on divergence, too, the last one that runs
programs.
What the worker pool and Ray take is another benchmark: tests.benchmarks.pool.

candidates, seconds: counted from the end of the seed program, which all others wait for, until ten
    candidates have ended for each worker; so the ideal is 10 s.
clock: `real` sleeps. `virtual` adds up the CPU time of this process and the seconds that it would
    have slept, so that nothing is left out that the controller computes.
controller_ms: CPU time of this process for each of the candidates.
"""

from __future__ import annotations

import heapq
import json
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Protocol

from search.campaign.controller import Controller
from search.storage.store import Store
from tests.search.instant import launch, outcome_of
from workers.spec.outcome import Job, Report

EVALUATION_S = 1.0
ROUNDS = 10
REAL, VIRTUAL = (1, 2, 16), (256, 1000)


class Clock(Protocol):
    def now(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class RealClock:
    now = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)


class VirtualClock:
    """The CPU time of this process, and whatever was slept."""

    def __init__(self) -> None:
        self._slept = 0.0

    def now(self) -> float:
        return time.process_time() + self._slept

    def sleep(self, seconds: float) -> None:
        self._slept += seconds


class SleepingEvaluator:
    """Workers whose every job takes `EVALUATION_S`. It calls `enough` once `count` jobs have ended
    after the first one, which is the seed program's; `children` counts those."""

    def __init__(self, capacity: int, count: int, clock: Clock) -> None:
        self._capacity, self._count, self._clock = capacity, count, clock
        self._due: list[tuple[float, int, Job]] = []
        self.enough: Callable[[], None] = lambda: None
        self.began = self.began_cpu = self.ended = self.ended_cpu = 0.0
        self.children = -1

    def capacity(self) -> int:
        return self._capacity

    def submit(self, job: Job) -> None:
        assert len(self._due) < self._capacity
        heapq.heappush(self._due, (self._clock.now() + EVALUATION_S, job.id, job))

    def wait(self, timeout_s: float) -> list[Report]:
        left = self._due[0][0] - self._clock.now() if self._due else timeout_s
        if left > 0:
            self._clock.sleep(min(left, timeout_s))
        reports: list[Report] = []
        while self._due and self._due[0][0] <= self._clock.now():
            _, _, job = heapq.heappop(self._due)
            reports.append(Report(job, outcome_of(job), "sleeping/1"))
        self._note(len(reports))
        return reports

    def _note(self, ended: int) -> None:
        """Times the first end and the one that makes enough."""
        before, self.children = self.children, self.children + ended
        if before < 0 <= self.children:
            self.began, self.began_cpu = self._clock.now(), time.process_time()
        if before < self._count <= self.children:
            self.ended, self.ended_cpu = self._clock.now(), time.process_time()
            self._count = self.children
            self.enough()

    def why_waiting(self) -> str | None:
        return None

    def result(self) -> dict[str, float]:
        seconds = self.ended - self.began
        return {
            "candidates": self._count,
            "seconds": round(seconds, 2),
            "of_ideal": round(self._count * EVALUATION_S / (self._capacity * seconds), 3),
            "controller_ms": round(1000 * (self.ended_cpu - self.began_cpu) / self._count, 2),
        }


def main() -> None:
    results: dict[str, dict[str, float | str]] = {}
    for workers in (*REAL, *VIRTUAL):
        kind = "real" if workers in REAL else "virtual"
        clock = RealClock() if workers in REAL else VirtualClock()
        results[str(workers)] = {"clock": kind, **campaign(workers, clock)}
        print(f"{workers} workers: {results[str(workers)]}", file=sys.stderr)
    for workers in VIRTUAL:
        results[f"{workers} ungated"] = {
            "clock": "virtual", **campaign(workers, VirtualClock(), divergence=False)
        }  # fmt: skip
    print(json.dumps(results))


def campaign(workers: int, clock: Clock, divergence: bool = True) -> dict[str, float]:
    """A campaign that is drained once its workers have ended `ROUNDS` candidates each."""
    count = ROUNDS * workers
    evaluator = SleepingEvaluator(workers, count, clock)
    with tempfile.TemporaryDirectory() as folder, Store.open(f"sqlite:///{folder}/db") as store:
        row = launch(
            store, candidates=10 * count, population=100, tournament=10,
            behaviour=False, divergence=divergence,
        )  # fmt: skip
        controller = Controller(store, row, evaluator, clock=clock.now)
        evaluator.enough = controller.drain
        controller.run()
    return evaluator.result()


if __name__ == "__main__":
    main()
