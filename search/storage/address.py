"""Where a database is: its URL, checked before anything is opened, and how it is named in messages.

SQLite and PostgreSQL are the kinds that the store is tested on. What a URL without a driver means
does not depend on the installed SQLAlchemy: PostgreSQL's is psycopg.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from search.errors import NotFoundError, PrimevoError, UsageError
from search.secret import shown

EXAMPLES = "sqlite:///primevo.db or postgresql://user@host/database"
DRIVERS = {"sqlite": "pysqlite", "postgresql": "psycopg"}
SYNCHRONOUS = ("normal", "full", "extra")
"""What a SQLite URL may ask of each commit by `?synchronous=`; `normal` is the default."""


class StoreError(PrimevoError):
    """The database cannot be opened, read or written."""


def parse(url: str, create: bool) -> URL:
    """The URL of a database that may be opened; its driver is set. Raises a UsageError for what is
    no such URL, a StoreError for a folder that does not exist, a NotFoundError for a SQLite file
    that is not there and may not be created."""
    try:
        address = make_url(url)
    except (ArgumentError, ValueError):
        raise UsageError(
            f"storage {shown(url)!r} is not a database URL; write e.g. {EXAMPLES}"
        ) from None
    backend, driver = address.get_backend_name(), address.drivername.partition("+")[2]
    if backend not in DRIVERS:
        raise UsageError(
            f"storage {shown(url)}: campaigns are kept in SQLite or PostgreSQL, not in {backend}; "
            f"write e.g. {EXAMPLES}"
        )
    if driver not in ("", DRIVERS[backend]):
        raise UsageError(
            f"storage {shown(url)}: the driver {driver} is not one that Primevo uses; write "
            f"{backend}:// in place of {backend}+{driver}://"
        )
    address = address.set(drivername=f"{backend}+{DRIVERS[backend]}")
    if backend == "sqlite":
        _check_file(url, address, create)
    else:
        _check_server(address)
    return address


def name(address: URL) -> str:
    """The database as messages call it: a file's path, or a URL without its password."""
    if address.get_backend_name() == "sqlite":
        return str(address.database)
    return shown(address.render_as_string(hide_password=True)).replace("+psycopg", "", 1)


def _check_server(address: URL) -> None:
    if "@" in (address.host or ""):
        raise UsageError(
            f"storage {name(address.set(host='...'))}: a password's '@' is written %40, its '/' "
            "%2F, its ':' %3A"
        )
    if not address.database:
        raise UsageError(f"storage {name(address)} names no database; write e.g. {EXAMPLES}")


def _check_file(url: str, address: URL, create: bool) -> None:
    if address.database in (None, "", ":memory:"):
        raise UsageError(f"storage {url!r} keeps nothing; name a file, e.g. sqlite:///primevo.db")
    _check_options(url, address)
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


def _check_options(url: str, address: URL) -> None:
    for key, value in address.query.items():
        if key != "synchronous":
            raise UsageError(f"storage {url}: '{key}' is not an option; there is: synchronous")
        if value not in SYNCHRONOUS:
            raise UsageError(
                f"storage {url}: synchronous={value} is not one of {', '.join(SYNCHRONOUS)}"
            )
