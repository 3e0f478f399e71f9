"""The schema of a database: which revision it has, and how it comes to another one.

`migrations` holds a step for each revision. Opening a database brings it to the newest; the steps
back are for going on with an earlier version of Primevo.
"""

from __future__ import annotations

import time

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import OperationalError

from search.errors import NotFoundError, UsageError
from search.storage.address import StoreError, name

HEAD = "0010"
"""The newest revision in `migrations`; a database that has it is opened without Alembic."""

READ_ONLY = "primevo_read_only"
"""The execution option of an engine that cannot write. It says how a database of an older schema
comes to the newest."""

PATIENCE_S = 5.0
"""How long several processes may take to make one new database."""

_MIGRATION_LOCK = 0x5072_696D


def prepare(engine: Engine, create: bool) -> None:
    """Brings the database to the newest schema. One without tables is given them, or is a
    NotFoundError without `create`."""
    with engine.connect() as connection:
        found = revision(connection)
    if found == HEAD:
        return
    if found is None and not create:
        raise NotFoundError(
            f"storage {name(engine.url)}: it has no campaigns; launch one, or name another"
        )
    if upgrade := engine.get_execution_options().get(READ_ONLY):
        raise StoreError(
            f"storage {name(engine.url)}: its schema is revision {found}, and it is opened for "
            f"reading alone, so it cannot be brought to {HEAD}; {upgrade}"
        )
    migrate(engine, HEAD)


def migrate(engine: Engine, target: str) -> str | None:
    """Brings the database to a revision, newer or older, in one transaction; its rows stay. What a
    step back has no place for goes: `migrations` says what. Returns the revision from before."""
    with engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            _use_wal(connection)
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        before = revision(connection)  # another process may have been first
        if before != target:
            _step(connection, before, target)
        connection.commit()
    return before


def _use_wal(connection: Connection) -> None:
    """SQLite does not wait for another process that is changing the mode, too, but fails."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            return
        except OperationalError as error:
            connection.rollback()
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def revision(connection: Connection) -> str | None:
    """The schema's revision; None for an empty database; a StoreError for a foreign one."""
    tables = inspect(connection).get_table_names()
    if not tables:
        return None
    found: str | None = None
    if "alembic_version" in tables:
        found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if found is None or "campaigns" not in tables:
        raise StoreError(
            f"storage {name(connection.engine.url)}: not a Primevo database (it has the tables "
            f"{', '.join(sorted(tables)[:5])}); name another"
        )
    return found


def checked_revision(connection: Connection) -> str | None:
    """The schema's revision, which may be older than the newest; a StoreError where this version
    of Primevo does not know it."""
    found = revision(connection)
    if found is not None and found > HEAD:
        raise _unknown(connection, found)
    return found


def _unknown(connection: Connection, found: str) -> StoreError:
    return StoreError(
        f"storage {name(connection.engine.url)}: its schema is revision {found}, and this "
        f"version of Primevo knows up to {HEAD}; upgrade Primevo, or name another database"
    )


def _step(connection: Connection, before: str | None, target: str) -> None:
    """Alembic is imported here only: most runs find the newest schema."""
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "search.storage:migrations")
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    if before is not None and before not in known:
        raise _unknown(connection, before)
    if target not in known:
        raise UsageError(f"there is no revision '{target}'; there are: {', '.join(sorted(known))}")
    config.attributes["connection"] = connection
    move = command.upgrade if (before or "") < target else command.downgrade
    move(config, target)
