"""For tests and benchmarks of the search: an evaluator that answers at once, small campaigns."""

from __future__ import annotations

import sys
import time
import zlib
from collections import deque
from collections.abc import Callable
from typing import Any

from search.campaign.controller import Controller
from search.config.schema import BudgetSpec, CampaignConfig, FinalSpec, SearchSpec
from search.errors import PrimevoError
from search.storage.store import CampaignRow, Store
from workers.spec.outcome import Job, Measurement, Outcome, Report


def outcome_of(job: Job) -> Outcome:
    """A plausible outcome that depends on the job's program and seed alone, and keeps to its
    hurdles: a candidate above a bar ends there. One program in 16 diverges."""
    code = zlib.crc32(f"{job.seed}/{job.dna}".encode())
    if code % 16 == 0 and job.id > 1:
        return Outcome("diverged", reason="loss is not finite at step 3", steps=3)
    quality = 2.0 + (code >> 4) % 1000 / 1000
    bars = {hurdle.at: hurdle.threshold for hurdle in job.budget.hurdles}
    curve: list[Measurement] = []
    passed = 0
    for at in sorted({*bars, *job.budget.points, job.budget.amount}):
        falling = 1.0 / (1 + passed) if bars else 1.0 / (1 + at / 25)
        loss = quality + falling + 0.01 * (at in job.budget.points)
        curve.append(Measurement(int(at), int(at) * 512, at / 100, loss))
        if at in bars:
            bar = bars[at]
            if bar is not None and loss > bar:
                break
            passed += 1
    last = curve[-1]
    return Outcome(
        "completed",
        val_loss=last.val_loss,
        val_bpb=last.val_loss * 1.4427,
        test_loss=last.val_loss + 0.01 if job.test else None,
        test_bpb=(last.val_loss + 0.01) * 1.4427 if job.test else None,
        params=100_000,
        flops_per_token=200_000,
        step_time_s=0.01,
        steps=last.steps,
        tokens=last.tokens,
        train_seconds=last.train_seconds,
        setup_seconds=0.5,
        hurdles_passed=passed,
        curve=tuple(curve),
    )


class InstantEvaluator:
    """Ends jobs in the order in which they came, one a call, `delay_s` after it is asked."""

    def __init__(
        self,
        capacity: int = 1,
        outcome: Callable[[Job], Outcome] = outcome_of,
        delay_s: float = 0.0,
    ) -> None:
        self._capacity, self._outcome, self._delay_s = capacity, outcome, delay_s
        self._jobs: deque[Job] = deque()
        self.submitted: list[Job] = []

    def capacity(self) -> int:
        return self._capacity

    def submit(self, job: Job) -> None:
        assert len(self._jobs) < self._capacity
        self._jobs.append(job)
        self.submitted.append(job)

    def wait(self, timeout_s: float) -> list[Report]:
        if not self._jobs:
            return []
        if self._delay_s:
            time.sleep(self._delay_s)
        job = self._jobs.popleft()
        return [Report(job, self._outcome(job), "instant/1")]

    def why_waiting(self) -> str | None:
        return None


def make_config(candidates: int = 60, **search: Any) -> CampaignConfig:
    """A small campaign with hurdles, on the vanilla seed."""
    settings: dict[str, Any] = {
        "population": 20,
        "tournament": 5,
        "budget": BudgetSpec(unit="steps", base=25.0, hurdles=2),
        "final": FinalSpec(top=2, seeds=2),
    }
    return CampaignConfig(search=SearchSpec(candidates=candidates, **{**settings, **search}))


def launch(store: Store, name: str = "test", seed: int = 1, **search: Any) -> CampaignRow:
    return store.create_campaign(name, make_config(**search).model_dump_json(), seed)


def main(url: str, name: str, capacity: str, delay_s: str) -> None:
    """Runs a campaign: python -m tests.search.instant URL NAME CAPACITY DELAY_S"""
    with Store.open(url) as store:
        evaluator = InstantEvaluator(int(capacity), delay_s=float(delay_s))
        progress = Controller(store, store.campaign(name), evaluator).run()
        print(progress.phase)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except PrimevoError as error:
        sys.exit(str(error))
