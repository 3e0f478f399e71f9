"""The runs of studies that a database holds: listed by what they were made for, and deleted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, delete, func, select

from search.errors import NotFoundError, did_you_mean
from search.storage.models import StudyRun
from search.storage.store import Store

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kept:
    """The runs that one study was the first to need: how many, of how many programs, and when the
    first and the last of them ended, in seconds since the epoch. Other studies may use them."""

    study: str
    programs: int
    runs: int
    first_at: float
    last_at: float


def studies(store: Store) -> list[Kept]:
    """Every study that has runs, the one that ended last at the end."""
    statement = (
        select(
            StudyRun.study, func.count(StudyRun.hash.distinct()), func.count(),
            func.min(StudyRun.finished_at), func.max(StudyRun.finished_at),
        )
        .group_by(StudyRun.study)
        .order_by(func.max(StudyRun.finished_at), StudyRun.study)
    )  # fmt: skip
    with store.reading() as connection:
        return [Kept(*row) for row in connection.execute(statement).tuples()]


def runs(store: Store, study: str) -> list[Record]:
    """A study's runs in the order of their endings; a NotFoundError where it has none."""
    of_study(store, study)
    columns = (
        StudyRun.hash, StudyRun.seed, StudyRun.unit, StudyRun.amount, StudyRun.outcome,
        StudyRun.val_loss, StudyRun.worker, StudyRun.finished_at, StudyRun.task,
    )  # fmt: skip
    statement = select(*columns).where(_of(study)).order_by(StudyRun.finished_at, StudyRun.key)
    with store.reading() as connection:
        rows = connection.execute(statement).mappings().all()
    return [{**row, "task": json.loads(row["task"])} for row in rows]


def of_study(store: Store, study: str) -> Kept:
    """A NotFoundError where there is no such study, with the nearest one."""
    found = studies(store)
    for each in found:
        if each.study == study:
            return each
    names = [each.study for each in found]
    known = ", ".join(f"'{name}'" for name in names[-10:]) or "none yet"
    raise NotFoundError(f"no study '{study}'{did_you_mean(study, names)}; there are: {known}")


def forget(store: Store, study: str) -> None:
    """Deletes a study's runs, in one transaction: the same command then trains them again."""
    with store.writing() as connection:
        connection.execute(delete(StudyRun).where(_of(study)))


def _of(study: str) -> ColumnElement[bool]:
    return StudyRun.study == study
