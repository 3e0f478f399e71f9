"""How often a config's campaign finds something: python -m tests.benchmarks.success CONFIG SEED ...

Runs the campaign once for each campaign seed, one after another on the same workers, and prints
one JSON object a line: the test loss of the candidate that is offered less the seed program's, in
bits per byte (means over the final runs; offered is the finalist with the lowest validation loss in
these), how many candidates were trained and how many outcomes taken over, and the seconds that it
took. The last line has the number of runs, how many of them ended below the seed program, and the
mean difference.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean

from search.campaign import queries
from search.campaign.controller import Controller
from search.campaign.progress import FinalRow
from search.config.file import load
from search.config.schema import CampaignConfig
from search.storage.store import Store
from workers.pool.pool import Pool


def main(path: str, seeds: list[str]) -> None:
    config = load(Path(path))
    found = []
    with Pool(config.task, config.workers) as pool:
        for seed in map(int, seeds):
            found.append(one(config, pool, seed))
            print(json.dumps(found[-1]), flush=True)
    gains = [float(run["difference"]) for run in found]
    below = sum(gain < 0 for gain in gains)
    print(json.dumps({"runs": len(gains), "below": below, "mean": round(mean(gains), 4)}))


def one(config: CampaignConfig, pool: Pool, seed: int) -> dict[str, float]:
    """A campaign from its first candidate to its verdict."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Store.open(f"sqlite:///{folder}/db") as store:
        own = config.model_copy(update={"weights": f"{folder}/weights"})
        row = store.create_campaign("success", own.model_dump_json(), seed)
        progress = Controller(store, row, pool).run()
        rows = list(queries.summary(store, "success").final)
    (first,) = (row for row in rows if row.is_seed)
    completed = [row for row in rows if row.val_losses and not row.is_seed]
    offered = min(completed, key=lambda row: mean(row.val_losses))
    return {
        "seed": seed,
        "difference": round(bpb(offered) - bpb(first), 4),
        "trained": progress.children,
        "taken_over": progress.duplicates,
        "seconds": round(time.monotonic() - began, 1),
    }


def bpb(row: FinalRow) -> float:
    """Mean over runs; one that diverged is as bad as a model that knows nothing."""
    return row.bpb if row.bpb is not None else 8.0


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
