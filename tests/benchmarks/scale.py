"""How a campaign of 100,000 candidates is looked at and gone on with:
python -m tests.benchmarks.scale [--candidates N] [--storage URL]

The controller itself makes the campaign, with one worker that answers at once and no final phase;
on 2 shared cores that takes some minutes. Prints one JSON object.

rows, file_mb: candidates and training runs in the database, and its size (SQLite's files; what
    PostgreSQL says of the database).
steps: CPU time of the controller a trained candidate in milliseconds, in windows of 5,000 of them:
    `beginning`, the second window (in the first, the population is still copies of the seed
    program, and the children are short), `end`, the last, and their ratio; `instructions` is the
    mean length of the programs that were dispatched in each.
in_process: wall-clock seconds of what `status`, `top`, `top --by id`, `list` and `show` ask of the
    database, the best of three, each with a store of its own that is opened before.
command: wall-clock seconds of the whole command `primevo status ...`, Python's start included, the
    best of three.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import func, make_url, select

from search.campaign import queries
from search.campaign.controller import Controller
from search.config.schema import BudgetSpec, CampaignConfig, FinalSpec, SearchSpec
from search.storage.models import Candidate, Evaluation
from search.storage.store import Store
from tests.search.instant import InstantEvaluator
from workers.spec.outcome import Job

NAME = "scale"
WINDOW = 5000


class CountingEvaluator(InstantEvaluator):
    """Keeps of each job no more than its length and when it came, in CPU time of this process."""

    def __init__(self) -> None:
        super().__init__()
        self.moments: list[float] = []
        self.lengths: list[int] = []

    def submit(self, job: Job) -> None:
        self._jobs.append(job)
        self.moments.append(time.process_time())
        self.lengths.append(job.dna.count(" = "))
        if len(self.moments) % 10_000 == 0:
            print(f"{len(self.moments)} trained", file=sys.stderr)

    def steps(self) -> dict[str, Any]:
        """Milliseconds a candidate in the second window and in the last one."""
        windows = range(0, len(self.moments) - WINDOW, WINDOW)
        times = [
            1000 * (self.moments[start + WINDOW] - self.moments[start]) / WINDOW
            for start in windows
        ]
        lengths = [sum(self.lengths[start : start + WINDOW]) / WINDOW for start in windows]
        return {
            "beginning_ms": times[1], "end_ms": times[-1], "ratio": times[-1] / times[1],
            "instructions": [lengths[1], lengths[-1]], "all_ms": [round(t, 2) for t in times],
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--candidates", type=int, default=100_000)
    parser.add_argument("--storage")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = arguments.storage or f"sqlite:///{folder}/scale.db"
        results = {**made(url, arguments.candidates), **looked_at(url)}
    print(json.dumps(_rounded(results)))


def made(url: str, candidates: int) -> dict[str, Any]:
    """The campaign, unless the database has it from before, and how long its steps took."""
    config = CampaignConfig(
        search=SearchSpec(
            candidates=candidates,
            budget=BudgetSpec(unit="steps", base=25.0, hurdles=2),
            final=FinalSpec(top=0),
        )
    )
    with Store.open(url) as store:
        if any(campaign.name == NAME for campaign in store.campaigns()):
            return {}
        campaign = store.create_campaign(NAME, config.model_dump_json(), seed=0)
        evaluator = CountingEvaluator()
        began = time.perf_counter()
        Controller(store, campaign, evaluator).run()
        return {"made_s": time.perf_counter() - began, "steps": evaluator.steps()}


def looked_at(url: str) -> dict[str, Any]:
    """What the campaign takes of the disk, and what looking at it takes of time."""
    with Store.open(url) as store, store.reading() as connection:
        rows = {
            model.__tablename__: connection.execute(
                select(func.count()).select_from(model)
            ).scalar_one()
            for model in (Candidate, Evaluation)
        }
    asked: dict[str, Callable[[Store], object]] = {
        "status": lambda store: queries.summary(store, NAME),
        "top": lambda store: queries.top(store, NAME),
        "top_by_params": lambda store: queries.top(store, NAME, by="params"),
        "list": queries.campaigns,
        "show": lambda store: queries.lineage(store, NAME, rows["candidates"]),
    }
    commands = (["status", NAME], ["top", NAME], ["list"])
    return {
        "rows": rows,
        "file_mb": size(url) / 1e6,
        "in_process_s": {name: best(lambda ask=ask: _ask(url, ask)) for name, ask in asked.items()},
        "command_s": {verb[0]: best(lambda verb=verb: _command(url, verb)) for verb in commands},
    }  # fmt: skip


def _ask(url: str, ask: Callable[[Store], object]) -> float:
    with Store.open(url, create=False) as store:
        began = time.perf_counter()
        ask(store)
        return time.perf_counter() - began


def _command(url: str, verb: list[str]) -> float:
    command = [sys.executable, "-m", "search.cli", *verb]
    began = time.perf_counter()
    subprocess.run(
        command, env={**os.environ, "PRIMEVO_STORAGE": url}, check=True, capture_output=True
    )
    return time.perf_counter() - began


def best(measure: Callable[[], float]) -> float:
    return min(measure() for _ in range(3))


def size(url: str) -> int:
    """Bytes."""
    path = make_url(url).database
    if url.startswith("sqlite"):
        files = Path(str(path)).parent.glob(f"{Path(str(path)).name}*")
        return sum(file.stat().st_size for file in files)
    with Store.open(url) as store, store.reading() as connection:
        return int(connection.execute(select(func.pg_database_size(path))).scalar_one())


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
