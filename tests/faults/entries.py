"""What the workers of fault tests run instead of training: instant outcomes, and accidents.

The folder in PRIMEVO_FAULTS says which candidate meets with which: `faults.json` maps ids to names.
Each run is noted in its file `runs` as a line `id seed process`.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from tests.search.instant import outcome_of
from workers.pool.worker import Setup
from workers.spec.outcome import Job, Outcome
from workers.spec.task import Task

GROWN: list[bytes] = []
DELAY_S = 0.05


def folder() -> Path:
    return Path(os.environ["PRIMEVO_FAULTS"])


def warm_up(setup: Setup) -> None:
    """Nothing to warm."""


def note_run(job: Job) -> None:
    """Notes that a run begins; lines of several processes do not mix."""
    with (folder() / "runs").open("a") as runs:
        runs.write(f"{job.id} {job.seed} {os.getpid()}\n")


def accident(job: Job) -> str:
    """What is to happen to this candidate in its search run; empty where nothing is."""
    path = folder() / "faults.json"
    planned = json.loads(path.read_text()) if path.exists() else {}
    return "" if job.test else str(planned.get(str(job.id), ""))


def first_time(job: Job) -> bool:
    """Whether no worker has come here with this candidate before."""
    try:
        (folder() / f"once-{job.id}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def act(job: Job, task: Task) -> Outcome:
    """The outcome that the instant evaluator gives, unless something happens."""
    note_run(job)
    what = accident(job)
    if what == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif what == "grow":
        while True:
            GROWN.append(b"x" * (64 << 20))
    elif what == "fault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "kill" or (what == "kill once" and first_time(job)):
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "raise":
        raise ValueError("a bug of the framework")
    time.sleep(float(os.environ.get("PRIMEVO_DELAY_S", DELAY_S)))
    return outcome_of(job)
