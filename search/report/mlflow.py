"""Runs as those of an MLflow experiment, on a tracking server or in its database.

A run carries its key in a tag. One that is there and has ended is left alone, so that a second
export adds what is new; one that an interrupted export left unfinished is made again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import Any

from search.errors import PrimevoError
from search.report.runs import TrackedRun

KEY = "primevo.key"
SCORE = 1000
"""Metrics that one request may hold."""


def write(runs: Iterable[TrackedRun], uri: str, experiment: str) -> tuple[int, int]:
    """Adds the runs to the experiment, which is made if there is none. Returns how many runs there
    are, and how many were added. A PrimevoError where the server or database cannot be used."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # or importing it sends usage data
    import mlflow
    from mlflow.exceptions import MlflowException

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    seen = added = 0
    try:
        client = mlflow.MlflowClient(tracking_uri=uri)
        id = _experiment(client, experiment)
        known = _known(client, id)
        for run in runs:
            seen += 1
            if run.key not in known:
                _add(client, id, run)
                added += 1
    except MlflowException as error:
        raise PrimevoError(f"--uri {uri}: {str(error).strip().splitlines()[0]}") from None
    return seen, added


def _experiment(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name))
    if found.lifecycle_stage != "active":
        raise PrimevoError(
            f"MLflow's experiment '{name}' was deleted; restore it there, or choose another "
            "--experiment"
        )
    return str(found.experiment_id)


def _known(client: Any, experiment: str) -> set[str]:
    """The keys of the runs that are there and have ended; the others are deleted, after the last
    page, as a page begins at the n-th run of those that are there."""
    keys: set[str] = set()
    unfinished: list[str] = []
    token: str | None = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        for run in page:
            key = run.data.tags.get(KEY)
            if key is None:
                continue
            if run.info.status == "RUNNING":
                unfinished.append(run.info.run_id)
            else:
                keys.add(key)
        token = page.token
        if not token:
            break
    for id in unfinished:
        client.delete_run(id)
    return keys


def _add(client: Any, experiment: str, run: TrackedRun) -> None:
    from mlflow.entities import Param

    started = int((run.finished_at - run.seconds) * 1000)
    note = f"```\n{run.program}\n```"
    made = client.create_run(
        experiment,
        start_time=started,
        run_name=run.name,
        tags={KEY: run.key, "mlflow.note.content": note},
    )
    id = made.info.run_id
    params = [Param(name, str(value)) for name, value in run.settings.items()]
    client.log_batch(id, params=params)
    metrics = _metrics(run, started)
    for first in range(0, len(metrics), SCORE):
        client.log_batch(id, metrics=metrics[first : first + SCORE])
    status = "FINISHED" if run.completed else "FAILED"
    client.set_terminated(id, status, end_time=int(run.finished_at * 1000))


def _metrics(run: TrackedRun, started: int) -> list[Any]:
    """The validation loss by step, and every metric at the last step."""
    from mlflow.entities import Metric

    curve = [
        Metric("val_loss", point.val_loss, started + int(1000 * (point.train_seconds or 0)),
               point.steps)
        for point in run.points
        if point.val_loss is not None
    ]  # fmt: skip
    last, end = run.points[-1].steps if run.points else 0, int(run.finished_at * 1000)
    scores = (item for item in run.scores.items() if not (item[0] == "val_loss" and curve))
    return [*curve, *(Metric(name, value, end, last) for name, value in scores)]
