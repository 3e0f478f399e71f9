"""Databases, some of whose values or bytes are others."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from primitives.language.text import parse
from search.errors import PrimevoError
from search.storage.database import clear_errors, connecting, open_engine, understanding
from search.storage.models import Pruning
from search.storage.schema import HEAD, migrate
from tests.fuzz.inputs import folder, written
from tests.search.recorded import PRUNING


@cache
def _database() -> bytes:
    from search.campaign.controller import Controller
    from search.storage.store import Store
    from search.study.study import Subject
    from tests.search.instant import InstantEvaluator, launch
    from tests.study.known import SEED, SQUARED, study

    path = folder() / "sound.db"
    with Store.open(f"sqlite:///{path}") as store:
        campaign = launch(store, "first", candidates=12, seeds=("transformer", "switch"))
        Controller(store, campaign, InstantEvaluator(2)).run()
        made, _ = study(store)
        made.run(
            [Subject.of("a", parse(text, d_model=64), made.setting) for text in (SEED, SQUARED)]
        )
        with store.writing() as connection:
            connection.execute(insert(Pruning), PRUNING)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    return path.read_bytes()


def database_row(data: bytes) -> str | None:
    """A value in a column of one row, and every way of looking at the campaign."""
    from search.campaign import queries
    from search.campaign.replay import replay
    from search.report.page import render as page
    from search.storage.store import Store
    from search.study import kept, prunings

    path, rng = _changed("row.db", _database(), data)
    told = []
    looks: list[Callable[[Store], object]] = [
        queries.campaigns, lambda store: queries.summary(store, "first"),
        lambda store: queries.top(store, "first"), lambda store: replay(store, "first"),
        lambda store: queries.lineage(store, "first", 9), _known_runs,
        lambda store: [kept.runs(store, each.study) for each in kept.studies(store)],
        lambda store: [each.record for each in prunings.prunings(store)],
        lambda store: [queries.stored_program(store, store.campaign("first"), id)
                       for id in range(1, 13)],
    ]  # fmt: skip
    if rng.random() < 0.2:
        looks.append(lambda store: page(store, "first"))
    for look in looks:
        try:
            with Store.open(f"sqlite:///{path}", create=False) as store, store.understanding():
                look(store)
        except PrimevoError as refusal:
            told.append(str(refusal))
    return told[0] if told else None


def _changed(name: str, database: bytes, data: bytes) -> tuple[Path, random.Random]:
    """A database file with a value in a column of one row, and what chose the place."""
    place, _, value = data.partition(b"|")
    rng = random.Random(place)
    path = written(name, database)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        there = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        table = rng.choice([table for table in TABLES if table in there])
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        stored: object = value
        if rng.random() < 0.7:
            stored = value.decode("utf-8", "replace")
        statement = f"UPDATE {table} SET {rng.choice(columns)} = ? WHERE rowid = ?"
        row = rng.randrange(1, {"prunings": 2, "campaigns": 2}.get(table, 13))
        with contextlib.suppress(sqlite3.Error):
            connection.execute(statement, (stored, row))
    return path, rng


@cache
def _earlier() -> list[bytes]:
    """The database as each earlier version would have it."""
    found = []
    for number in range(1, int(HEAD)):
        path = written("earlier.db", _database())
        engine = open_engine(f"sqlite:///{path}", create=False)
        migrate(engine, f"{number:04}")
        engine.dispose()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
        found.append(path.read_bytes())
    return found


def earlier_database(data: bytes) -> str | None:
    """A value in a column of one row of a database of an earlier version, which is brought to this
    one: what is read of it then, and a way back."""
    from search.campaign import queries
    from search.storage.store import Store

    rng = random.Random(data)
    path, _ = _changed("old.db", rng.choice(_earlier()), data)
    url, told = f"sqlite:///{path}", list[str]()

    def look() -> None:
        with Store.open(url, create=False) as store, store.understanding():
            queries.summary(store, "first")

    def go_back() -> None:
        with connecting(url) as engine, clear_errors(engine), understanding(engine):
            migrate(engine, f"{rng.randrange(1, int(HEAD)):04}")

    for act in (look, go_back):
        try:
            act()
        except PrimevoError as refusal:
            told.append(str(refusal))
    return told[0] if told else None


def _known_runs(store: Any) -> None:
    """The runs that a study asks for, as it asks."""
    from search.study.runs import known
    from search.study.setting import setting
    from tests.study.known import SEED, SQUARED, graph_of, small_config

    made = setting(small_config(), 3)
    hashes = [graph_of(parse(text, d_model=64)).hash for text in (SEED, SQUARED)]
    known(store, made, [(each, seed) for each in hashes for seed in made.seeds])


TABLES = ("campaigns", "candidates", "evaluations", "study_runs", "prunings")


def row_values() -> list[bytes]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(_database())
        values = [value for table in TABLES
                  for row in connection.execute(f"SELECT * FROM {table} LIMIT 3")
                  for value in row if isinstance(value, str)]  # fmt: skip
    return [f"{number}|{value}".encode() for number, value in enumerate(dict.fromkeys(values))]


def database_file(data: bytes) -> str | None:
    """A database file, some of whose bytes are others."""
    from search.campaign import queries
    from search.storage.store import Store

    rng, made = random.Random(data), bytearray(_database())
    for _ in range(rng.choice((1, 5, 50))):
        at = rng.randrange(len(made))
        made[at : at + len(data)] = data[: len(made) - at] or b"\0"
        data = data[rng.randrange(len(data) + 1) :]
    path = written("file.db", bytes(made))
    for beside in ("file.db-wal", "file.db-shm", "file.db-journal"):
        (folder() / beside).unlink(missing_ok=True)
    try:
        with Store.open(f"sqlite:///{path}", create=False) as store, store.understanding():
            queries.summary(store, "first")
            queries.top(store, "first")
    except PrimevoError as refusal:
        return str(refusal)
    return None
