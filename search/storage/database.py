"""A database by URL: opened, checked, brought to the newest schema; errors say what to do.

SQLite runs in WAL mode, so that readers never wait for the writer, and PostgreSQL's sessions end
soon after the machine that they came from. A SQLite file in a folder that cannot be written is
opened for reading alone.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from search.secret import without_passwords
from search.storage import schema
from search.storage.address import StoreError as StoreError
from search.storage.address import name, parse

BUSY_TIMEOUT_S = 30.0

CONNECT_TIMEOUT_S = 10
"""How long a PostgreSQL server is waited for, unless the URL says `connect_timeout`."""

KEEPALIVE_S = 10
"""Either side of a session asks a silent other one as often, and ends it after three questions.
Without it a server would keep the lease of a machine that lost its power for two hours."""

_NOT_UNDERSTOOD = (
    ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError,
    RecursionError,
)  # fmt: skip


def open_engine(url: str, create: bool) -> Engine:
    """An engine on a database with the newest schema. Without `create` an empty database is a
    NotFoundError, as a missing SQLite file is. A database of another program, or of a newer
    version, is left as it is."""
    engine = connect(url, create)
    try:
        with clear_errors(engine), understanding(engine):
            schema.prepare(engine, create)
    except BaseException:
        engine.dispose()
        raise
    return engine


def open_read_only(url: str) -> Engine:
    """An engine that cannot write, on a database that is there and has the newest schema; one of an
    older schema is a StoreError that says how it comes to it."""
    engine = _connect_read_only(url)
    try:
        with clear_errors(engine), understanding(engine):
            schema.prepare(engine, create=False)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _connect_read_only(url: str) -> Engine:
    address = parse(url, create=False)
    if address.get_backend_name() == "sqlite":
        if _unwritable(address):
            return _in_unwritable_folder(address)
        return _sqlite_read_only(address, "mode=ro", f"upgrade it by: {_UPGRADE}")
    engine = connect(url, create=False)
    event.listen(engine, "connect", _forbid_writing)
    return engine.execution_options(**{schema.READ_ONLY: f"upgrade it by: {_UPGRADE}"})


_UPGRADE = "primevo db upgrade"


def connect(url: str, create: bool) -> Engine:
    """An engine on a database whatever its schema is, which is not looked at."""
    address = parse(url, create)
    sqlite = address.get_backend_name() == "sqlite"
    try:
        if sqlite and not create and _unwritable(address):
            return _in_unwritable_folder(address)
        engine = create_engine(
            address.set(query={}) if sqlite else address, connect_args=_connect_args(address)
        )
    except (ImportError, NoSuchModuleError) as error:
        raise StoreError(
            f"storage {name(address)}: PostgreSQL's driver is missing ({_line(error)}); install it "
            "by: pip install 'primevo[postgres]'"
        ) from None
    if sqlite:
        synchronous = str(address.query.get("synchronous", "normal"))
        event.listen(engine, "connect", partial(_configure_sqlite, synchronous))
    else:
        event.listen(engine, "connect", _configure_postgresql)
    return engine


@contextmanager
def connecting(url: str) -> Iterator[Engine]:
    """The engine of `connect` on a database that is there, for as long as the block lasts."""
    engine = connect(url, create=False)
    try:
        yield engine
    finally:
        engine.dispose()


def sqlite_path(engine: Engine) -> Path | None:
    """The file of a SQLite database, None for another kind."""
    if engine.url.get_backend_name() != "sqlite":
        return None
    return Path(str(engine.url.database))


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A connection that reads one moment of the database, whatever others write meanwhile."""
    with engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")
        else:
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield connection


@contextmanager
def clear_errors(engine: Engine) -> Iterator[None]:
    """Database failures inside become one StoreError that names the database."""
    try:
        yield
    except (SQLAlchemyError, engine.dialect.loaded_dbapi.Error) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        raise StoreError(f"storage {name(engine.url)}: {_explain(reason)}") from error


@contextmanager
def understanding(engine: Engine) -> Iterator[None]:
    """For work on what was read alone. SQLite does not check what its file holds: where that is
    not what campaigns record, the work fails in many ways, and each becomes one StoreError."""
    try:
        yield
    except _NOT_UNDERSTOOD as error:
        reason = f"{type(error).__name__}: {_line(error)}"
        raise StoreError(
            f"storage {name(engine.url)}: its content is damaged ({reason}); restore a copy of it"
        ) from error


def _line(error: BaseException | None) -> str:
    """A failure's text on one line, cut where it is long."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:197]}..."


def _connect_args(address: URL) -> dict[str, object]:
    if address.get_backend_name() == "sqlite":
        return {"timeout": BUSY_TIMEOUT_S}
    ours = {
        "connect_timeout": CONNECT_TIMEOUT_S, "application_name": "primevo",
        "keepalives_idle": KEEPALIVE_S, "keepalives_interval": KEEPALIVE_S, "keepalives_count": 3,
        "tcp_user_timeout": 4000 * KEEPALIVE_S,
    }  # fmt: skip
    return {key: value for key, value in ours.items() if key not in address.query}


def _configure_sqlite(synchronous: str, connection: Any, record: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA synchronous={synchronous.upper()}")
    cursor.close()


def _configure_postgresql(connection: Any, record: ConnectionPoolEntry) -> None:
    """The server's side of the keep-alive; a Unix socket has none and takes no notice."""
    with connection.cursor() as cursor:
        for setting, value in (
            ("tcp_keepalives_idle", KEEPALIVE_S), ("tcp_keepalives_interval", KEEPALIVE_S),
            ("tcp_keepalives_count", 3), ("tcp_user_timeout", 4000 * KEEPALIVE_S),
        ):  # fmt: skip
            cursor.execute(f"SET {setting} = {value}")
    connection.commit()


def _forbid_writing(connection: Any, record: ConnectionPoolEntry) -> None:
    """The server refuses every statement of this session that writes."""
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")
    connection.commit()


def _unwritable(address: URL) -> bool:
    """Whether SQLite can make no file beside the database, which WAL mode needs even to read."""
    return not os.access(Path(str(address.database)).parent, os.W_OK)


def _in_unwritable_folder(address: URL) -> Engine:
    """Nobody can write there, so the file is taken as it is. Where a controller died, or another
    machine's is at work, what was recorded last is in a write-ahead log beside it; SQLite reads it
    by an index file, which it cannot make there."""
    path = Path(str(address.database)).absolute()
    log, index = (path.with_name(f"{path.name}-{end}") for end in ("wal", "shm"))
    logged = log.exists() and log.stat().st_size > 0
    if logged and not index.exists():
        raise StoreError(
            f"storage {name(address)}: what was recorded last is in {log.name}, and its folder "
            "cannot be written, which reading that needs; copy both files to a folder that can"
        )
    fix = "its folder cannot be written: copy the file to a folder that can"
    return _sqlite_read_only(address, "mode=ro" if logged else "immutable=1", fix)


def _sqlite_read_only(address: URL, mode: str, upgrade: str) -> Engine:
    """SQLite opens the file for reading alone, anew for each connection, so that a file that takes
    its place is seen. `upgrade` says how one of an older schema comes to the newest."""
    path = Path(str(address.database)).absolute()

    def opened() -> sqlite3.Connection:
        return sqlite3.connect(
            f"file:{quote(str(path))}?{mode}", uri=True, timeout=BUSY_TIMEOUT_S,
            check_same_thread=False,
        )  # fmt: skip

    return create_engine(
        address.set(query={}), creator=opened, poolclass=NullPool,
        execution_options={schema.READ_ONLY: upgrade},
    )  # fmt: skip


_MEANINGS = (
    ("is locked", "locked by another program for {busy_s:.0f} s; end that program"),
    ("not a database", "not a SQLite database; name another file"),
    ("unable to open", "cannot be opened; look at the path and its permissions"),
    ("readonly", "cannot be written; look at the permissions of the file and its folder"),
    ("disk is full", "the disk is full; free some space, then resume"),
    ("malformed", "damaged; restore a copy of it"),
    ("decode to UTF-8", "damaged; restore a copy of it"),
    ("password authentication failed", "the server refuses the user or the password"),
    ("no password supplied", "the server asks for a password, and the URL has none"),
    ("failed to resolve host", "there is no such host; look at the URL"),
    ("could not translate host name", "there is no such host; look at the URL"),
    ("Connection refused", "no server takes connections there; look at host and port"),
    ("timeout expired", f"no server answered in {CONNECT_TIMEOUT_S} s; look at host and port"),
    ("timed out", "no server answers there; look at host, port and the network"),
    ("permission denied", "the server does not let this user do that; ask whoever runs it"),
    ("No space left on device", "the server's disk is full; free some space, then resume"),
)


def _explain(error: BaseException | None) -> str:
    reason = without_passwords(_line(error))
    if 'database "' in reason and "does not exist" in reason:
        return f"the server has no such database; make it by createdb ({reason})"
    for sign, meaning in _MEANINGS:
        if sign in reason:
            return f"{meaning.format(busy_s=BUSY_TIMEOUT_S)} ({reason})"
    return reason
