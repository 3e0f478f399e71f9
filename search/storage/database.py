"""A database by URL: opened, checked, brought to the newest schema; errors say what to do.

SQLite runs in WAL mode, so that readers never wait for the writer; PostgreSQL works by URL.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from search.errors import NotFoundError, PrimevoError, UsageError

HEAD = "0005"
"""The newest revision in `migrations`; a database that has it is opened without Alembic."""

BUSY_TIMEOUT_S = 30.0
_MIGRATION_LOCK = 0x5072_696D
_NOT_UNDERSTOOD = (
    ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError,
    RecursionError,
)  # fmt: skip
_EXAMPLES = "sqlite:///primevo.db or postgresql://user@host/database"


class StoreError(PrimevoError):
    """The database cannot be opened, read or written."""


def open_engine(url: str, create: bool) -> Engine:
    """An engine on a database with the newest schema. Without `create` a missing SQLite file is a
    NotFoundError. A database of another program, or of a newer version, is left as it is."""
    address = _parse(url, create)
    try:
        engine = create_engine(address, connect_args=_connect_args(address))
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise StoreError(
            f"storage {url}: its driver is missing ({error}); for PostgreSQL, pip install psycopg"
        ) from None
    if address.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
    try:
        with clear_errors(engine), understanding(engine):
            _prepare(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def sqlite_path(engine: Engine) -> Path | None:
    """The file of a SQLite database, None for another kind."""
    if engine.url.get_backend_name() != "sqlite":
        return None
    return Path(str(engine.url.database))


@contextmanager
def clear_errors(engine: Engine) -> Iterator[None]:
    """Database failures inside become one StoreError that names the database."""
    try:
        yield
    except (SQLAlchemyError, engine.dialect.loaded_dbapi.Error) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        raise StoreError(f"storage {_name(engine.url)}: {_explain(reason)}") from error


@contextmanager
def understanding(engine: Engine) -> Iterator[None]:
    """For work on what was read alone. SQLite does not check what its file holds: where that is
    not what campaigns record, the work fails in many ways, and each becomes one StoreError."""
    try:
        yield
    except _NOT_UNDERSTOOD as error:
        reason = f"{type(error).__name__}: {_line(error)}"
        raise StoreError(
            f"storage {_name(engine.url)}: its content is damaged ({reason}); restore a copy of it"
        ) from error


def _line(error: BaseException | None) -> str:
    """A failure's text on one line, cut where it is long."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:197]}..."


def _parse(url: str, create: bool) -> URL:
    try:
        address = make_url(url)
    except ArgumentError:
        raise UsageError(f"storage {url!r} is not a database URL; write e.g. {_EXAMPLES}") from None
    if address.get_backend_name() != "sqlite":
        return address
    if address.database in (None, "", ":memory:"):
        raise UsageError(f"storage {url!r} keeps nothing; name a file, e.g. sqlite:///primevo.db")
    path = Path(str(address.database))
    try:
        path.exists()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"storage {str(path)[:80]!r} cannot be a file: {reason}") from None
    if not path.parent.is_dir():
        raise StoreError(f"storage {path}: the folder {path.parent} does not exist; create it")
    if not create and not path.exists():
        raise NotFoundError(f"storage {path}: no such file; launch a campaign, or name another")
    return address


def _connect_args(address: URL) -> dict[str, object]:
    if address.get_backend_name() == "sqlite":
        return {"timeout": BUSY_TIMEOUT_S}
    return {}


def _configure_sqlite(connection: object, record: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _prepare(engine: Engine) -> None:
    with engine.connect() as connection:
        if _revision(connection) == HEAD:
            return
    with engine.connect() as connection:
        sqlite = connection.dialect.name == "sqlite"
        if sqlite:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        revision = _revision(connection)  # another process may have been first
        if revision != HEAD:
            _migrate(connection, revision)
        connection.commit()


def _revision(connection: Connection) -> str | None:
    """The schema's revision; None for an empty database; a StoreError for a foreign one."""
    tables = inspect(connection).get_table_names()
    if not tables:
        return None
    revision: str | None = None
    if "alembic_version" in tables:
        revision = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if revision is None or "campaigns" not in tables:
        raise StoreError(
            f"storage {_name(connection.engine.url)}: not a Primevo database (it has the tables "
            f"{', '.join(sorted(tables)[:5])}); name another"
        )
    return revision


def _migrate(connection: Connection, revision: str | None) -> None:
    """Alembic is imported here only: most runs find the newest schema."""
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "search.storage:migrations")
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    if revision is not None and revision not in known:
        raise StoreError(
            f"storage {_name(connection.engine.url)}: its schema is revision {revision}, and this "
            f"version of Primevo knows up to {HEAD}; upgrade Primevo, or name another database"
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _name(address: URL) -> str:
    if address.get_backend_name() == "sqlite":
        return str(address.database)
    return address.render_as_string(hide_password=True)


def _explain(error: BaseException | None) -> str:
    reason = _line(error)
    for sign, meaning in (
        ("is locked", f"locked by another program for {BUSY_TIMEOUT_S:.0f} s; end that program"),
        ("not a database", "not a SQLite database; name another file"),
        ("unable to open", "cannot be opened; look at the path and its permissions"),
        ("readonly", "cannot be written; look at the permissions of the file and its folder"),
        ("disk is full", "the disk is full; free some space, then resume"),
        ("malformed", "damaged; restore a copy of it"),
        ("decode to UTF-8", "damaged; restore a copy of it"),
    ):
        if sign in reason:
            return f"{meaning} ({reason})"
    return reason
