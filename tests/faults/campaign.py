"""The command line with real workers that run `tests.faults.entries` instead of training:
`python -m tests.faults.campaign VERB...`. PRIMEVO_ENTRY names another entry."""

from __future__ import annotations

import os
from collections.abc import Sequence

from search.cli import running
from search.cli.app import main
from workers.pool.pool import WARM_UP, Pool
from workers.spec.pool import PoolSpec
from workers.spec.task import Task

ENTRIES = "tests.faults.entries"


class FaultyPool(Pool):
    """Takes the place of `workers.pool.pool.Pool`."""

    def __init__(self, task: Task, spec: PoolSpec, *, plugins: Sequence[str] = ()) -> None:
        entry = os.environ.get("PRIMEVO_ENTRY")
        warm_up = WARM_UP if entry else f"{ENTRIES}:warm_up"
        super().__init__(task, spec, entry or f"{ENTRIES}:act", warm_up, plugins)


if __name__ == "__main__":
    running.Pool = FaultyPool  # type: ignore[misc]
    main()
