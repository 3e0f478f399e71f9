"""Campaigns, prunings and runs of studies copied from one database to another, of either kind.

Rows arrive as they were, under the same numbers; only those of campaigns and prunings are the
target's to give, so that it keeps counting where it stood. Everything is read from one moment of
the source and written in one transaction: whatever happens on the way, the target has all of it or
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Select, func, insert, select
from sqlalchemy.exc import IntegrityError

from search.errors import NotFoundError, UsageError, did_you_mean
from search.storage.address import name as name_of
from search.storage.database import clear_errors, open_engine, snapshot, understanding
from search.storage.models import (
    Base,
    Campaign,
    Candidate,
    Evaluation,
    Pruning,
    StudyRun,
    table_of,
)

Row = Mapping[str, Any]
"""A campaign's row by column."""

_ROWS = 1000
"""Rows that are held in memory at a time."""


@dataclass(frozen=True, slots=True)
class Copied:
    """A campaign that was copied, with how much of it there is."""

    name: str
    candidates: int
    evaluations: int


@dataclass(frozen=True, slots=True)
class Transfer:
    """What arrived: campaigns, and how many prunings and runs of studies; and how many that belong
    to no campaign stayed where they were, because one campaign alone was asked for."""

    campaigns: tuple[Copied, ...]
    prunings: int
    study_runs: int = 0
    prunings_left: int = 0
    study_runs_left: int = 0


def copy(
    source: str, target: str, campaign: str | None = None, rename: str | None = None
) -> Transfer:
    """Copies the campaign of that name with its prunings, or all of them, and all runs of studies
    and prunings of other programs that the target does not have, between the databases at two URLs;
    the target is made where it is not there. `rename` is what the one campaign is called there. A
    UsageError where the target has a campaign of a name, a NotFoundError where the source has
    none."""
    with _opened(source, create=False) as old, _reading(old) as reader:
        rows = _campaigns(reader, campaign, name_of(old.url))
        if rename is not None:
            rows = [_renamed(rows, rename, name_of(old.url))]
        with _opened(target, create=True) as new, clear_errors(new), new.begin() as writer:
            _refuse_taken(writer, [row["name"] for row in rows], name_of(new.url))
            numbers = {row["id"]: _add(writer, row, name_of(new.url)) for row in rows}
            copied = tuple(_copied(reader, writer, row, numbers[row["id"]]) for row in rows)
            prunings = sum(_copy_prunings(reader, writer, *pair) for pair in numbers.items())
            if campaign is not None:
                left = _count(reader, Pruning, Pruning.campaign_id.is_(None))
                return Transfer(copied, prunings, 0, left, _count(reader, StudyRun))
            prunings += _copy_prunings(reader, writer, None, None)
            return Transfer(copied, prunings, _copy_study_runs(reader, writer))


@contextmanager
def _opened(url: str, create: bool) -> Iterator[Engine]:
    engine = open_engine(url, create)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def _reading(engine: Engine) -> Iterator[Connection]:
    with clear_errors(engine), understanding(engine), snapshot(engine) as connection:
        yield connection


def _campaigns(reader: Connection, wanted: str | None, place: str) -> Sequence[Row]:
    table = table_of(Campaign)
    found = reader.execute(select(table).order_by(table.c.id)).mappings()
    rows: list[Row] = [dict(row) for row in found]
    if wanted is None:
        return rows
    names = [row["name"] for row in rows]
    if wanted not in names:
        known = ", ".join(names[:10]) or "none yet"
        raise NotFoundError(
            f"storage {place}: no campaign '{wanted}'{did_you_mean(wanted, names)}; there are: "
            f"{known}"
        )
    return [row for row in rows if row["name"] == wanted]


def _renamed(rows: Sequence[Row], name: str, place: str) -> Row:
    """The one row under another name."""
    if len(rows) != 1:
        names = ", ".join(str(row["name"]) for row in rows[:10]) or "none"
        raise UsageError(
            f"--as {name} is for one campaign; choose it with --campaign NAME; in {place} are: "
            f"{names}"
        )
    return {**rows[0], "name": name}


def _refuse_taken(writer: Connection, names: Sequence[str], place: str) -> None:
    taken = writer.execute(select(Campaign.name).where(Campaign.name.in_(names))).scalars().all()
    if taken:
        raise UsageError(_taken(sorted(taken), place))


def _taken(names: Sequence[str], place: str) -> str:
    which = ", ".join(f"'{name}'" for name in names[:5])
    return (
        f"storage {place} has a campaign {which} already, and nothing was copied; delete it there, "
        "choose what to copy with --campaign NAME, or give it another name with --as NAME"
    )


def _add(writer: Connection, row: Row, place: str) -> int:
    """The number that the target gives a campaign."""
    own = {key: value for key, value in row.items() if key != "id"}
    try:
        return writer.execute(insert(Campaign).returning(Campaign.id), own).scalar_one()
    except IntegrityError:  # another process was first
        raise UsageError(_taken([row["name"]], place)) from None


def _copied(reader: Connection, writer: Connection, row: Row, number: int) -> Copied:
    counts = [
        _copy_rows(reader, writer, model, row["id"], number) for model in (Candidate, Evaluation)
    ]
    return Copied(row["name"], *counts)


def _copy_rows(
    reader: Connection, writer: Connection, model: type[Base], old: int, new: int
) -> int:
    """Rows in the order of their numbers, so that what one refers to is there before it."""
    count = 0
    result = reader.execution_options(yield_per=_ROWS).execute(_of_campaign(model, old))
    for rows in result.mappings().partitions():
        writer.execute(insert(model), [{**row, "campaign_id": new} for row in rows])
        count += len(rows)
    return count


def _copy_prunings(reader: Connection, writer: Connection, old: int | None, new: int | None) -> int:
    """Those of a campaign, or, of programs from outside, those that the target does not have."""
    table = table_of(Pruning)
    mine = table.c.campaign_id.is_(None) if new is None else table.c.campaign_id == new
    there = set(writer.execute(select(table.c.key).where(mine)).scalars())
    theirs = table.c.campaign_id.is_(None) if old is None else table.c.campaign_id == old
    count = 0
    for row in reader.execute(select(table).where(theirs).order_by(table.c.id)).mappings():
        if row["key"] not in there:
            own = {key: value for key, value in row.items() if key != "id"}
            writer.execute(insert(table), own | {"campaign_id": new})
            count += 1
    return count


def _copy_study_runs(reader: Connection, writer: Connection) -> int:
    """A run's key says all that decides it, so one that the target has is not needed again."""
    table = table_of(StudyRun)
    there = set(writer.execute(select(table.c.key)).scalars())
    count = 0
    result = reader.execution_options(yield_per=_ROWS).execute(select(table).order_by(table.c.key))
    for rows in result.mappings().partitions():
        new = [dict(row) for row in rows if row["key"] not in there]
        if new:
            writer.execute(insert(table), new)
        count += len(new)
    return count


def _count(reader: Connection, model: type[Base], *which: ColumnElement[bool]) -> int:
    statement = select(func.count()).select_from(table_of(model)).where(*which)
    return reader.execute(statement).scalar_one()


def _of_campaign(model: type[Base], number: int) -> Select[*tuple[Any, ...]]:
    table = table_of(model)
    return select(table).where(table.c.campaign_id == number).order_by(*table.primary_key.columns)
