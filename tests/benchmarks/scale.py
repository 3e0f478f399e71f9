"""How a campaign of 100,000 candidates is looked at and gone on with:
python -m tests.benchmarks.scale [--candidates N] [--storage URL]

The controller itself makes the campaign, with one worker that answers at once and no final phase;
on 2 shared cores that takes some minutes. Prints one JSON object.

rows, file_mb: candidates and training runs in the database, and its size (SQLite's files; what
    PostgreSQL says of the database).
steps: CPU time of the controller in milliseconds, in windows of WINDOW candidates: `beginning` is
    the second window (in the first, the population is still copies of the seed program, and the
    children are short), `end` the last. `a_candidate_ms` divides by the candidates; `a_child_ms`
    by the children that were made for them: where a population has converged, more of them are
    refused ("same function as the parent"), which is of the search and not of its length.
in_process_s: seconds of what `status`, `top`, `top --by params`, `list` and `lineage` ask of the
    database, with a store of its own that is opened before; by the clock, and of CPU in this
    process (a PostgreSQL server's is not among it). The best of five each.
command_s: the same of the whole command, such as `primevo status`, Python's start included; with
    compiled files, as an installation has them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
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
WINDOW = 5_000


class TimingEvaluator(InstantEvaluator):
    """Notes when the first candidate of each window came, in CPU time of this process."""

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[tuple[int, float]] = []

    def submit(self, job: Job) -> None:
        self._jobs.append(job)
        if job.id > WINDOW * len(self.marks):
            self.marks.append((job.id, time.process_time()))
            print(f"candidate {job.id}", file=sys.stderr)


def steps(store: Store, marks: list[tuple[int, float]]) -> dict[str, Any]:
    """Milliseconds a candidate, and a child, in each window."""
    refused = _refused(store)
    a_candidate, a_child = [], []
    for (first, began), (after, ended) in pairwise(marks):
        children = after - first + sum(refused[first - 1 : after - 1])
        a_candidate.append(1000 * (ended - began) / (after - first))
        a_child.append(1000 * (ended - began) / children)
    return {
        "window": WINDOW,
        "a_candidate_ms": _ends(a_candidate),
        "a_child_ms": _ends(a_child),
    }  # fmt: skip


def _ends(times: list[float]) -> dict[str, Any]:
    return {
        "beginning": times[1], "end": times[-1], "ratio": times[-1] / times[1], "all": times,
    }  # fmt: skip


def _refused(store: Store) -> list[int]:
    """The children refused before each candidate."""
    with store.reading() as connection:
        found = connection.execute(select(Candidate.rejections).order_by(Candidate.id)).scalars()
        return [sum(rejections.values()) for rejections in found]


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
        evaluator = TimingEvaluator()
        began = time.perf_counter()
        Controller(store, campaign, evaluator).run()
        seconds = time.perf_counter() - began
        return {"made_s": seconds, "steps": steps(store, evaluator.marks)}


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
        "lineage": lambda store: queries.lineage(store, NAME, rows["candidates"]),
    }
    commands = (["status", NAME], ["top", NAME], ["list"])
    return {
        "rows": rows,
        "file_mb": size(url) / 1e6,
        "in_process_s": {
            name: best(lambda ask=ask: _ask(url, ask), time.process_time)
            for name, ask in asked.items()
        },
        "command_s": {
            verb[0]: best(lambda verb=verb: _command(url, verb), _children_s) for verb in commands
        },
    }  # fmt: skip


@contextmanager
def _ask(url: str, ask: Callable[[Store], object]) -> Iterator[Callable[[], object]]:
    with Store.open(url, create=False) as store:
        yield lambda: ask(store)


@contextmanager
def _command(url: str, verb: list[str]) -> Iterator[Callable[[], object]]:
    command = [sys.executable, "-m", "search.cli", *verb]
    environment = {**os.environ, "PRIMEVO_STORAGE": url}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else every call compiles all modules again
    yield lambda: subprocess.run(command, env=environment, check=True, capture_output=True)


def _children_s() -> float:
    """CPU time of the processes that have ended below this one."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def best(
    prepared: Callable[[], AbstractContextManager[Callable[[], object]]], cpu: Callable[[], float]
) -> dict[str, float]:
    """The shortest of five times, by the clock and by `cpu`; what is prepared is not timed."""
    times = []
    for _ in range(5):
        with prepared() as work:
            began, before = time.perf_counter(), cpu()
            work()
            times.append((time.perf_counter() - began, cpu() - before))
    clock, used = zip(*times, strict=True)
    return {"clock": min(clock), "cpu": min(used)}


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
