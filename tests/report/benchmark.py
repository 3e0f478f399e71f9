"""What a report of 50,000 candidates takes: python -m tests.report.benchmark [CANDIDATES]"""

from __future__ import annotations

import sys
import tempfile
import time

from search.report.page import render
from search.storage.store import Store
from tests.report.synthetic import write


def main(count: int = 50_000) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        Store.open(f"sqlite:///{folder}/primevo.db") as store,
    ):
        write(store, "long", count)
        wall, processor = time.perf_counter(), time.process_time()
        page = render(store, "long")
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        print(
            f"{count:,} candidates: {len(page) / 1e6:.1f} MB in {wall:.1f} s "
            f"({processor:.1f} s of processor time)"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
