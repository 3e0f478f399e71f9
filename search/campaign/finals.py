"""What final runs measured beside the loss: how far probabilities can be trusted, and scores on the
task's other text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from statistics import fmean

from sqlalchemy import Connection, select

from search.campaign.progress import FinalRow
from search.storage.models import Evaluation
from workers.spec.metrics import METRICS, by_task

TITLES = {
    "transfer_bpb": "transfer bits/byte",
    "test_ece": "calibration error",
    "test_brier": "Brier",
}
"""The metrics that a table of finalists shows, and what it calls them."""


def titles(rows: Iterable[FinalRow]) -> dict[str, str]:
    """Those that any of the rows has."""
    known = {name: 0.0 for row in rows for name in row.tested}
    tasks = [name for name in by_task(known) if name.startswith("test_bpb")]
    named = {name: f"{name.partition('/')[2]} bits/byte" for name in tasks}
    return {name: title for name, title in (named | TITLES).items() if name in known}


def with_tested(
    rows: Iterable[FinalRow], connection: Connection, campaign_id: int
) -> tuple[FinalRow, ...]:
    """The rows with the means of those metrics of test text that have no column of their own."""
    names = [row.name for row in METRICS.values() if row.where == "test" and row.column is None]
    found: dict[int, dict[str, list[float]]] = {}
    statement = select(Evaluation.candidate_id, Evaluation.metrics).where(
        Evaluation.campaign_id == campaign_id,
        Evaluation.kind == "final",
        Evaluation.outcome == "completed",
    )
    for id, metrics in connection.execute(statement).tuples():
        for name in [*names, *by_task(metrics or {})]:
            value = (metrics or {}).get(name)
            if value is not None:
                found.setdefault(id, {}).setdefault(name, []).append(value)
    return tuple(
        replace(row, tested={name: fmean(values) for name, values in found[row.id].items()})
        if row.id in found
        else row
        for row in rows
    )
