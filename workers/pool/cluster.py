"""Ray: started on this machine or joined as a cluster; its actors, and what they die of."""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.machine.devices import Layout, cpu_count, gpu_count
from workers.pool.worker import Setup, Worker, one_line
from workers.spec.pool import PoolSpec, layout

# Ray reads these when it is imported. No telemetry; no copy of the environment under `uv run`; no
# notes on dead workers in the middle of a progress display (the pool reports them).
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed")

import ray
from ray.exceptions import RayError, RayTaskError, RuntimeEnvSetupError

OBJECT_STORE_BYTES = 80 * 2**20
"""Near Ray's minimum: jobs and outcomes are small, tokens are shared through files."""

STARVED = "killed by Ray, because its machine ran out of memory"

Place = tuple[str, int]
"""Where a worker is: host name and process id."""


class PoolError(RuntimeError):
    """There is nothing to run jobs on; the message says why."""


class WorkerDied(Exception):
    """A worker's process ended by itself; the message says of what, in one line. `starved`: for
    want of memory, as far as anybody knows."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.starved = reason == STARVED or "bad_alloc" in reason


@dataclass(frozen=True, slots=True)
class Cluster:
    """Ray as this process uses it.

    Attributes:
        layout: The workers that there is room for, and each one's share.
        folder: The folder of a Ray that this process started, which ends with it. None means that
            Ray belongs to somebody else and stays.
    """

    layout: Layout
    folder: Path | None

    def start_worker(self, setup: Setup) -> Any:
        """Starts a worker and returns its actor at once. On a cluster Ray places it where CPUs and
        GPUs are free; on this machine the layout has counted them, and Ray hands out GPUs only."""
        cpus = self.layout.cpus if self.folder is None else 0
        return (
            ray.remote(Worker)
            .options(num_cpus=cpus, num_gpus=self.layout.gpus, max_restarts=0, max_task_retries=0)
            .remote(setup)
        )

    def shortage(self) -> str:
        """Says what a worker asks of a cluster that has not placed it yet, and what is free there.
        Empty on this machine, where there is always room."""
        if self.folder is not None:
            return ""
        free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
        return (
            f"; each needs {self.layout.cpus} CPUs and {self.layout.gpus:g} GPUs of one machine, "
            f"free are {free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs in all"
        )

    def answers(self, calls: list[Any], timeout_s: float) -> list[Any]:
        """Waits until a call has ended or the time is up, and returns all that have ended."""
        done, rest = ray.wait(calls, num_returns=1, timeout=timeout_s)
        if done and rest:
            done += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        return list(done)

    def answer(self, call: Any, place: Place | None) -> Any:
        """Returns what an ended call returned. Raises WorkerDied if the worker's process is gone.
        Raises PoolError if the call raised: jobs never do, so the worker could not warm up."""
        try:
            return ray.get(call)
        except RayTaskError as error:
            raise PoolError(f"a worker cannot start: {one_line(error.cause)}") from error
        except RayError as error:
            raise WorkerDied(self._death(str(error), place)) from error

    def kill(self, actor: Any) -> None:
        """Ends a worker's process without asking it, whatever it is doing."""
        ray.kill(actor, no_restart=True)

    def _death(self, text: str, place: Place | None) -> str:
        if "running low on memory" in text or "memory usage threshold" in text:
            return STARVED
        if code := re.search(r"exit code (-?\d+)", text):
            return f"it exited with code {code[1]}"
        last = _last_words(self.folder, place[1]) if self.folder and place else None
        return last or "killed from outside, or by the system for want of memory"

    def leave(self) -> None:
        """Ends Ray, with its logs, if this process started it."""
        if self.folder is not None:
            ray.shutdown()
            shutil.rmtree(self.folder, ignore_errors=True)


def _last_words(folder: Path, process: int) -> str | None:
    """The signal that a worker's log says it died of, with the line before, which tells why."""
    for path in folder.glob(f"session_latest/logs/worker-*-{process}.err"):
        lines = path.read_text(errors="replace").splitlines()
        for index, line in enumerate(lines):
            if signal := re.match(r"\*\*\* (SIG\w+) received", line):
                before = lines[index - 1] if index else ""
                said = "" if before.startswith(":") else before.strip()
                return f"{signal[1]}: {said}" if said else signal[1]
    return None


def join(spec: PoolSpec, sources: Sequence[Path] = ()) -> Cluster:
    """Joins the Ray at `spec.address`; else the one that this process is connected to; else starts
    one on this machine, which ends when the calling thread does. Raises PoolError.

    `sources` are packages (folders) and modules (files) that Ray takes to the other machines of the
    cluster at `spec.address`. On this machine workers find them where the driver does.
    """
    if not ray.is_initialized():
        if spec.address is None:
            return _start(spec)
        carried = {"py_modules": [str(path) for path in sources]} if sources else None
        try:
            _knock(spec.address)
            ray.init(
                spec.address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=carried
            )
        except (OSError, ValueError, RuntimeEnvSetupError) as error:
            text = f"cannot join the Ray cluster at workers.address '{spec.address}': {error}"
            raise PoolError(text) from error
    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return Cluster(_layout(spec, int(total.get("CPU", 0)), int(total.get("GPU", 0))), None)


def _knock(address: str) -> None:
    """Raises OSError where nobody listens: Ray itself would try again for ever."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _start(spec: PoolSpec) -> Cluster:
    """A Ray of our own in a folder of its own: parallel campaigns do not meet, and its logs go
    with it. Under /tmp, because the paths of its sockets must be short."""
    gpus = gpu_count()
    planned = _layout(spec, cpu_count(), gpus)
    folder = Path(tempfile.mkdtemp(prefix="primevo-", dir="/tmp"))
    try:
        ray.init(
            address="local",
            num_cpus=planned.count,
            num_gpus=gpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=str(folder),
        )
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise PoolError(f"Ray cannot start on this machine: {one_line(error)}") from error
    return Cluster(planned, folder)


def _layout(spec: PoolSpec, cpus: int, gpus: int) -> Layout:
    try:
        return layout(spec, cpus, gpus)
    except ValueError as error:
        raise PoolError(str(error)) from error
