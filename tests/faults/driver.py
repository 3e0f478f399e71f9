"""A process with a Pool and a Ray of its own, which tests can kill piece by piece.

python -m tests.faults.driver COMMAND... runs a job for each command of `pool_entries` on two
workers. It prints a JSON list for each event: ["up", address] once Ray has started, ["warm"] when
the workers have, ["ended", job, status, reason] for each report, ["lost", message] for a PoolError.
"""

from __future__ import annotations

import json
import sys

import ray

from workers.pool.pool import Pool, PoolError
from workers.spec.outcome import Budget, Job
from workers.spec.pool import PoolSpec
from workers.spec.task import Task

ENTRIES = "tests.workers.pool_entries"


def say(*event: object) -> None:
    print(json.dumps(event), flush=True)


def main(commands: list[str]) -> None:
    with Pool(Task(), PoolSpec(count=2), f"{ENTRIES}:obey", f"{ENTRIES}:warm_up") as pool:
        say("up", ray.get_runtime_context().gcs_address)
        try:
            drive(pool, ["sleep 1", "sleep 1"])
            say("warm")
            drive(pool, commands)
        except PoolError as error:
            say("lost", str(error))


def drive(pool: Pool, commands: list[str]) -> None:
    for index, command in enumerate(commands):
        pool.submit(Job(index, command, Budget("steps", 1), seed=0))
    left = len(commands)
    while left:
        for report in pool.wait(60):
            say("ended", report.job.id, report.outcome.status, report.outcome.reason)
            left -= 1


if __name__ == "__main__":
    main(sys.argv[1:])
