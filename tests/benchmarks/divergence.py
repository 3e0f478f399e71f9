"""What the gate on divergence finds of what was trained: python -m tests.benchmarks.divergence
STORAGE_URL CAMPAIGN ...

Every candidate of the campaigns that was trained is asked again, whether or not its campaign had
the gate; nothing is trained. Prints one JSON object: `trained` and `diverged` candidates; of the
latter `found`, by reason, and `recall`; `refused_wrongly`, those that trained to a loss, with the
share of the campaign's others that were better, and `precision`; `setup_saved`, the share of all
seconds of setting up (compilation, above all) that the refused ones took; and `ms`, the CPU time of
a question in milliseconds.

docs/results/h200-equal-seconds.db.xz, unpacked, has the campaigns pp, vanilla-1, vanilla-2 and
vanilla-3.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from primitives.graph.build import Graph
from primitives.language.text import parse
from search.config.plugins import stored_config
from search.report.runs import TrackedRun, tracked_runs
from search.storage.store import Store
from workers.spec import fit


class Asked(NamedTuple):
    """A trained candidate: its run, what the gate says of it, and how long that took."""

    run: TrackedRun
    reason: str | None
    seconds: float


def asked(store: Store, name: str) -> Iterator[Asked]:
    task = stored_config(store.campaign(name).config, name).task
    for run in tracked_runs(store, name):
        if run.name.endswith("-search"):
            graph = fit.task_graph(parse(run.program), task)
            assert isinstance(graph, Graph)
            began = time.process_time()
            reason = fit.divergence(graph, task)
            yield Asked(run, reason, time.process_time() - began)


def main(url: str, names: list[str]) -> None:
    with Store.open(url, create=False) as store:
        campaigns = [list(asked(store, name)) for name in names]
    everyone = [each for campaign in campaigns for each in campaign]
    diverged = [each for each in everyone if each.run.settings["outcome"] == "diverged"]
    found = Counter(each.reason for each in diverged if each.reason)
    worse = []
    for campaign in campaigns:
        fine = [each for each in campaign if each.run.completed]
        losses = sorted(each.run.scores["val_loss"] for each in fine)
        for each in fine:
            if each.reason:
                better = sum(loss < (each.run.scores["val_loss"]) for loss in losses)
                worse.append(round(better / len(losses), 2))
    setup = sum(each.run.scores["setup_seconds"] for each in everyone)
    saved = sum(each.run.scores["setup_seconds"] for each in everyone if each.reason)
    print(
        json.dumps(
            {
                "trained": len(everyone),
                "diverged": len(diverged),
                "found": found,
                "recall": round(found.total() / len(diverged), 3),
                "refused_wrongly": worse,
                "precision": round(found.total() / (found.total() + len(worse)), 3),
                "setup_saved": round(saved / setup, 3),
                "ms": round(1e3 * sum(each.seconds for each in everyone) / len(everyone), 2),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
