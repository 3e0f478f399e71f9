"""The command line with instant workers on an odd machine: `python -m tests.faults.odd VERB...`.

Its wall clock jumps back and forth by up to a year at every look where PRIMEVO_CLOCK is `jumping`,
and a locked database is waited for as many seconds as PRIMEVO_BUSY_S says.
"""

from __future__ import annotations

import os
import random
import time

from search.cli import running
from search.cli.app import main
from search.storage import database
from tests.cli.instant import InstantPool

YEAR_S = 365 * 24 * 3600.0

if __name__ == "__main__":
    if os.environ.get("PRIMEVO_CLOCK") == "jumping":
        rng, right = random.Random(0), time.time
        time.time = lambda: right() + rng.uniform(-YEAR_S, YEAR_S)
    database.BUSY_TIMEOUT_S = float(os.environ.get("PRIMEVO_BUSY_S", database.BUSY_TIMEOUT_S))
    running.Pool = InstantPool  # type: ignore[misc,assignment]
    main()
