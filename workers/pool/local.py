"""A Ray on this machine that belongs to this process: its folder, its servers, its end.

Nobody outside this machine can reach it: all its ports are bound to the loopback address. Other
users of the machine cannot, either: its servers ask for a token that is made here.

A process owns its folder by a lock on it, which the system takes away when the process ends,
however it ends. `start` removes the folders of owners that are gone.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants, services
from ray._private import worker as ray_worker
from ray._raylet import Config  # type: ignore[attr-defined]

OBJECT_STORE_BYTES = 80 * 2**20
"""Near Ray's minimum: jobs and outcomes are small, tokens are shared through files."""

PREFIX = "primevo-ray-"

SERVERS = {"raylet": "raylet", "gcs_server": "GCS server"}
"""Ray's processes that nothing works without, with the names that its documentation uses."""


@dataclass(frozen=True, slots=True)
class Session:
    """A Ray that this process started. `lock` is the open descriptor that owns the folder."""

    folder: Path
    lock: int

    def lost(self) -> str | None:
        """The name of a server that has died, if one has."""
        node: Any = ray_worker._global_node
        dead = (kind for kind, _ in node.dead_processes())
        return next((SERVERS[kind] for kind in dead if kind in SERVERS), None)

    def end(self) -> None:
        """Ends Ray and removes the folder."""
        ray.shutdown()
        _remove(self.folder, self.lock)


def start(cpus: int, gpus: int, parent: str = "/tmp") -> Session:
    """Starts Ray with a folder of its own in `parent`: parallel campaigns do not meet, and the logs
    go with it. The path is short because the paths of its sockets must be."""
    sweep(parent)
    folder, lock = _own_folder(parent)
    _ask_for_a_token()
    try:
        with _loopback(), _without_dashboard():
            ray.init(
                address="local",
                num_cpus=cpus,
                num_gpus=gpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=OBJECT_STORE_BYTES,
                _temp_dir=str(folder),
            )
        _let_agents_go(folder)
    except BaseException:
        _remove(folder, lock)
        raise
    return Session(folder, lock)


def sweep(parent: str = "/tmp") -> None:
    """Removes the folders of this user's sessions whose owners are gone."""
    for folder in Path(parent).glob(PREFIX + "*"):
        try:
            lock = _lock(folder)
        except OSError:  # somebody else's, owned by a living process, or just removed by another
            continue
        _remove(folder, lock)


def _own_folder(parent: str) -> tuple[Path, int]:
    """A new folder and the lock on it. Another process' sweep may come between the two."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        try:
            lock = _lock(folder)
        except OSError:
            continue
        if folder.exists():
            return folder, lock
        os.close(lock)


def _lock(folder: Path) -> int:
    """Locks a folder of this user, without waiting. Raises OSError where that cannot be. Processes
    started from here do not inherit the lock."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to another user")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove(folder: Path, lock: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)


def _ask_for_a_token() -> None:
    """Makes the servers that this process starts refuse all who do not bring its token. A process
    reads the token once, so it stays the same. Ray has read the mode when it was imported: it reads
    it again here."""
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    Config.initialize("")


def _let_agents_go(folder: Path) -> None:
    """Makes Ray's two agents end within seconds of a raylet that was killed, as it is when this
    process is. They would stay for a minute, in which they try to tell a server that is as dead
    that the raylet died, unless its log has the line of one that was asked to end."""
    with (folder / "session_latest/logs/raylet.out").open("a") as log:
        log.write("For the agents, whenever this raylet ends: Raylet received SIGTERM\n")


@contextmanager
def _loopback() -> Iterator[None]:
    """Ray binds its servers to the loopback address inside, as it does by itself on macOS. Its
    option `_node_ip_address` cannot say so: it replaces 127.0.0.1 by the machine's address."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _without_dashboard() -> Iterator[None]:
    """Ray starts no dashboard server inside. It would do so even where neither the dashboard nor
    telemetry is wanted, and that server asks three clouds' metadata services where it runs."""
    before = services.start_api_server
    services.start_api_server = lambda *arguments, **options: ("", None)
    try:
        yield
    finally:
        services.start_api_server = before
