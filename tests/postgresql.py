"""A private PostgreSQL server for tests, in a folder of its own, that ends with them."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import URL

PASSWORD = "s3cret-Pa55word"
"""That of the server's one user, over TCP; through the socket nobody is asked."""

USER = "primevo"
_NUMBERS = count(1)
_SETTINGS = {
    "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off",
    "shared_buffers": "32MB", "max_connections": "40", "log_min_messages": "fatal",
}  # fmt: skip


@dataclass(frozen=True)
class Server:
    """A running server: `folder` holds its socket, `port` is that of TCP and of the socket."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    def url(self, database: str, host: str = "127.0.0.1", password: str | None = PASSWORD) -> str:
        address = URL.create("postgresql+psycopg", USER, password, host, self.port, database)
        return address.render_as_string(hide_password=False)

    def new_database(self) -> str:
        """The URL of an empty database that nobody else has."""
        name = f"test_{next(_NUMBERS)}"
        with self.administering() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        return self.url(name)

    @contextmanager
    def administering(self) -> Iterator[Connection]:
        """A connection beside the tests' databases, each statement a transaction of its own."""
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            engine.dispose()


def binaries() -> Path | None:
    """The folder of `initdb` and `postgres`: Debian keeps them out of the path."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parts[-2])
    found = shutil.which("initdb")
    if found is not None:
        folders.append(Path(found).resolve().parent)
    return next((each for each in reversed(folders) if (each / "postgres").exists()), None)


@contextmanager
def serving(listen: str = "127.0.0.1", allowed: Sequence[str] = ()) -> Iterator[Server]:
    """A server that is ready, on the addresses `listen`; `allowed` are networks, beside loopback,
    whose connections are let in with the password."""
    found = binaries()
    if found is None:
        missing = "there is no PostgreSQL server: apt-get install postgresql"
        if os.environ.get("PRIMEVO_TEST_POSTGRESQL") == "required":
            pytest.fail(missing)
        pytest.skip(missing)
    folder = Path(tempfile.mkdtemp(prefix="primevo-pg-"))
    process = None
    try:
        user = _unprivileged(folder)
        _initialise(found, folder, user)
        with (folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.writelines(f"host all all {network} scram-sha-256\n" for network in allowed)
        port = _free_port()
        settings = {**_SETTINGS, "listen_addresses": listen, "port": str(port)}
        options = [part for each in settings.items() for part in ("-c", "=".join(each))]
        process = subprocess.Popen(
            [found / "postgres", "-D", folder / "data", "-k", folder, *options],
            stdout=subprocess.DEVNULL, stderr=(folder / "log").open("wb"), cwd=folder, **user,
        )  # fmt: skip
        server = Server(folder, port, process)
        _await(server)
        yield server
    finally:
        if process is not None:
            process.send_signal(signal.SIGQUIT)  # nothing of it is kept
            process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged(folder: Path) -> dict[str, Any]:
    """How Popen starts a process that owns the folder: the server refuses to run as root."""
    if os.getuid() != 0:
        return {}
    account = next(entry for entry in pwd.getpwall() if entry.pw_name in ("postgres", "nobody"))
    os.chown(folder, account.pw_uid, account.pw_gid)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _initialise(found: Path, folder: Path, user: dict[str, Any]) -> None:
    secret = folder / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)  # the folder itself is its owner's alone
    command = [
        found / "initdb", "-D", folder / "data", "-U", USER, f"--pwfile={secret}", "--no-sync",
        "--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8", "--locale=C",
    ]  # fmt: skip
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True, **user)
    assert made.returncode == 0, made.stderr


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        return int(chosen.getsockname()[1])


def _await(server: Server) -> None:
    """Until it takes connections."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with server.administering():
                return
        except Exception:
            log = (server.folder / "log").read_text(errors="replace")
            assert server.process.poll() is None, log
            assert time.monotonic() < deadline, log
            time.sleep(0.05)
