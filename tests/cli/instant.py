"""The command line with an instant evaluator for workers: run as `python -m tests.cli.instant`.

`INSTANT_DELAY_S` is what a job takes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from search.cli import running
from search.cli.app import main
from tests.search.instant import InstantEvaluator
from workers.spec.outcome import Job
from workers.spec.pool import PoolSpec
from workers.spec.task import Task


class InstantPool(InstantEvaluator):
    """Takes the place of `workers.pool.pool.Pool`."""

    def __init__(self, task: Task, spec: PoolSpec, *, plugins: Sequence[str] = ()) -> None:
        super().__init__(delay_s=float(os.environ.get("INSTANT_DELAY_S", "0")))

    def submit(self, job: Job) -> None:
        """As the pool does, it queues what it cannot start."""
        self._jobs.append(job)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._jobs.clear()


if __name__ == "__main__":
    running.Pool = InstantPool
    main()
