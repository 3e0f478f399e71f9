"""What a database holds of its campaigns, in comparable form, whatever keeps it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, create_engine, select, text

from search.storage.models import Base, Campaign, Candidate, Evaluation, Pruning

Row = tuple[object, ...]

STUDY_RUN: dict[str, Any] = {
    "study": "compare", "task": "{}", "hash": "h", "dna": "MAIN", "seed": 2**62, "unit": "steps",
    "amount": 3.0, "outcome": "completed", "val_loss": 1.5, "result": {"curve": [[1, None]]},
    "worker": "here/1", "finished_at": 1.0,
}  # fmt: skip
"""A run of a study, without its key."""

PRUNING: dict[str, Any] = {
    "key": "k" * 64, "program": "small-1", "campaign_id": 1, "candidate_id": 1, "task": "{}",
    "dna": "MAIN", "seed": 2**62, "measure": "flops", "share": 0.5, "folder": "/nowhere/k",
    "progress": {"phase": "gates", "done": 32, "total": 400}, "result": {"share_gone": 0.51},
    "started_at": 1.0, "finished_at": 2.0,
}  # fmt: skip
"""A pruning of a campaign's first candidate, without its number."""


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """A connection of one's own, as another process would have it; it commits at the end."""
    with _engine(url).begin() as connection:
        yield connection


@cache
def _engine(url: str) -> Engine:
    return create_engine(url, poolclass=NullPool)


def ask(url: str, statement: str, **parameters: object) -> list[Row]:
    """The rows that a statement gives."""
    with connected(url) as connection:
        result = connection.execute(text(statement), parameters)
        return [tuple(row) for row in result] if result.returns_rows else []


def candidates(url: str) -> list[Row]:
    """Every candidate but for when it was made; in order."""
    return _rows(url, Candidate, ("created_at",))


def evaluations(url: str) -> list[Row]:
    """Every training run but for when it ended; in order."""
    return _rows(url, Evaluation, ("finished_at",))


def rows(url: str) -> list[Row]:
    """All that was recorded, but for when."""
    return candidates(url) + evaluations(url)


def everything(url: str, name: str) -> list[list[Row]]:
    """All tables' rows of one campaign, to the last column but for numbers that a database
    gives."""
    with connected(url) as connection:
        number = connection.execute(select(Campaign.id).where(Campaign.name == name)).scalar_one()
    own = Campaign.__table__.c.id == number
    found = [_rows(url, Campaign, ("id",), own)]
    for model in (Candidate, Evaluation):
        table = model.__table__
        found.append(_rows(url, model, ("campaign_id",), table.c.campaign_id == number))
    mine = Pruning.__table__.c.campaign_id == number
    return [*found, _rows(url, Pruning, ("id", "campaign_id"), mine)]


def _rows(url: str, model: type[Base], but: tuple[str, ...], where: Any = None) -> list[Row]:
    table = model.__table__
    statement = select(*(column for column in table.columns if column.name not in but))
    if where is not None:
        statement = statement.where(where)
    with connected(url) as connection:
        found = connection.execute(statement.order_by(*table.primary_key.columns)).all()
    return [tuple(_comparable(value) for value in row) for row in found]


def _comparable(value: object) -> object:
    return json.dumps(value) if isinstance(value, dict | list) else value
