"""The right to run a campaign: one controller at a time, given back by the system when it dies.

A lock that the operating system (SQLite) or the server (PostgreSQL) drops with its holder needs no
expiry: a killed controller can be resumed at once, a suspended one is never taken for dead.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from search.storage.address import StoreError
from search.storage.database import sqlite_path

_PROBE_S = 0.5
"""A probe holds the lock for an instant; taking it waits that long before giving up."""

_NAMESPACE = 0x5072_696D
_TAKE = text("SELECT pg_try_advisory_lock(:space, :id)")
_GIVE_BACK = text("SELECT pg_advisory_unlock(:space, :id)")
_HELD = text("""
    SELECT count(*) FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND classid = :space AND objid = :id
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")


@contextmanager
def lease(writer: Connection, campaign_id: int) -> Iterator[bool]:
    """True inside if this process now holds the campaign; False if another controller does.

    `writer` is the connection that the holder records with. In PostgreSQL the lock belongs to its
    session: whoever lost the one has lost the other, and cannot record beside a new holder."""
    path = _lock_file(writer.engine, campaign_id)
    if path is not None:
        with _file_lease(path) as mine:
            yield mine
        return
    with _session_lease(writer, {"space": _NAMESPACE, "id": campaign_id}) as mine:
        yield mine


@contextmanager
def _file_lease(path: Path) -> Iterator[bool]:
    try:
        descriptor = _take_file(path)
    except OSError as error:
        raise StoreError(f"the lock file {path} cannot be written: {error.strerror}") from None
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            path.unlink(missing_ok=True)
            os.close(descriptor)


@contextmanager
def _session_lease(writer: Connection, key: dict[str, int]) -> Iterator[bool]:
    with writer.begin():
        mine = bool(writer.execute(_TAKE, key).scalar())
    try:
        yield mine
    finally:
        if mine and not writer.invalidated:
            try:
                with writer.begin():
                    writer.execute(_GIVE_BACK, key)
            except SQLAlchemyError:
                writer.invalidate()  # ends the session, and with it the lock


def held(engine: Engine, campaign_id: int) -> bool:
    """Whether some process is running the campaign."""
    path = _lock_file(engine, campaign_id)
    if path is None:
        with engine.connect() as connection:
            parameters = {"space": _NAMESPACE, "id": campaign_id}
            return bool(connection.execute(_HELD, parameters).scalar())
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _lock_file(engine: Engine, campaign_id: int) -> Path | None:
    path = sqlite_path(engine)
    return path and path.with_name(f"{path.name}.{campaign_id}.lock")


def _take_file(path: Path) -> int | None:
    """A descriptor that holds the file's lock, or None while another process has it."""
    deadline = time.monotonic() + _PROBE_S
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            if time.monotonic() > deadline:
                return None
            time.sleep(0.02)
            continue
        if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
        os.close(descriptor)  # the last holder removed the file while this one waited
