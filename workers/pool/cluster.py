"""Ray: started on this machine or joined as a cluster; its actors, and what they die of."""

from __future__ import annotations

import logging
import math
import re
import socket
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import (
    ActorUnavailableError,
    AuthenticationError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
)

from workers.machine.devices import Layout, cpu_count, gpu_count
from workers.machine.memory import MB, total_mb
from workers.pool.local import Session, start
from workers.pool.worker import Setup, Worker, one_line
from workers.spec.pool import PoolSpec, layout

STARVED = "killed by Ray, because its machine ran out of memory"
LOST = "its machine left the cluster, or cannot be reached"

HEADROOM, SMALLEST_SHARE_MB = 0.8, 2000.0
"""Share of the memory that workers may fill, and what each gets in any case: a fresh one holds
some 700 MB with a framework, and one that is replaced after every job gets nowhere."""

REFUSED = (
    "it asks for a token. Get it on the head node with `ray get-auth-token`, then set "
    "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN=<the token> here; all nodes of the cluster must have "
    "been started with the same two"
)

Place = tuple[str, int]
"""Where a worker is: host name and process id."""


class PoolError(RuntimeError):
    """There is nothing to run jobs on; the message says why."""


class WorkerDied(Exception):
    """A worker's process ended by itself, or cannot be reached any more; the message says of what,
    in one line. `starved`: for want of memory, as far as anybody knows. `lost`: with its machine,
    which says nothing about whether workers can start elsewhere."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.lost = reason == LOST
        self.starved = reason == STARVED or "bad_alloc" in reason


@dataclass(frozen=True, slots=True)
class Cluster:
    """Ray as this process uses it: it places workers, calls them, says what they died of, and kills
    them. All methods are for the thread that called `join`.

    Attributes:
        layout: The workers that there is room for, and each one's share.
        session: A Ray that this process started, which ends with `leave`. None means that Ray
            belongs to somebody else and stays.
    """

    layout: Layout
    session: Session | None

    @property
    def folder(self) -> Path | None:
        """Where a Ray that was started here keeps its logs."""
        return self.session.folder if self.session else None

    def lost(self) -> str | None:
        """The server of a Ray started here that has died, if one has; workers die with it. On
        somebody else's cluster Ray itself ends this process when it loses the head node."""
        return self.session.lost() if self.session else None

    def start_worker(self, setup: Setup) -> Any:
        """Starts a worker and returns its actor at once. On a cluster Ray places it where CPUs and
        GPUs are free; on this machine the layout has counted them, and Ray hands out GPUs only."""
        options: dict[str, Any] = {
            "num_cpus": setup.layout.cpus if self.folder is None else 0,
            "num_gpus": setup.layout.gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        if setup.jobs > 1:  # else its main thread runs them
            options["max_concurrency"] = setup.jobs
        return ray.remote(Worker).options(**options).remote(setup)

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

    def memory_share_mb(self, processes: int = 1) -> float:
        """Returns what a process may hold for all of them to fit, with some left for others, where
        each worker of the layout is so many."""
        if self.session is not None:
            total = total_mb()
        else:
            resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            total = resources.get("memory", math.inf) / MB
        return max(SMALLEST_SHARE_MB, HEADROOM * total / (self.layout.count * processes))

    def call(self, method: Any, *arguments: Any) -> Future[Any]:
        """Calls a worker's method. Callbacks of the future run in a thread of Ray; see `answer`."""
        future: Future[Any] = method.remote(*arguments).future()
        return future

    def answer(self, call: Future[Any], place: Place | None) -> Any:
        """Returns what an ended call returned. Raises WorkerDied if the worker's process is gone.
        Raises PoolError if the call raised: jobs never do, so the worker could not warm up."""
        try:
            return call.result()
        except RayTaskError as error:
            raise PoolError(f"a worker cannot start: {one_line(error.cause)}") from error
        except RayError as error:
            raise WorkerDied(self._death(error, place)) from error

    def kill(self, actor: Any) -> None:
        """Ends a worker's process without asking it, whatever it is doing."""
        ray.kill(actor, no_restart=True)

    def _death(self, error: RayError, place: Place | None) -> str:
        text = str(error)
        if "running low on memory" in text or "memory usage threshold" in text:
            return STARVED
        unreachable = isinstance(error, ActorUnavailableError) or "its node has died" in text
        if self.session is None and unreachable:
            return LOST
        if code := re.search(r"exit code (-?\d+)", text):
            return f"it exited with code {code[1]}"
        last = _last_words(self.folder, place[1]) if self.folder and place else None
        return last or "killed from outside, or by the system for want of memory"

    def leave(self) -> None:
        """Ends Ray, with its logs, if this process started it."""
        if self.session is not None:
            self.session.end()


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
        except (OSError, ValueError, AuthenticationError, RuntimeEnvSetupError) as error:
            why = REFUSED if _refused(error) else one_line(error)
            text = f"cannot join the Ray cluster at workers.address '{spec.address}': {why}"
            raise PoolError(text) from error
    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return Cluster(_layout(spec, int(total.get("CPU", 0)), int(total.get("GPU", 0))), None)


def _knock(address: str) -> None:
    """Raises OSError where nobody listens: Ray itself would try again for ever."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _refused(error: BaseException | None) -> bool:
    """Whether a cluster did not take this process' token, or this process has none to give. Ray
    raises the former as a ConnectionError whose cause holds the refusal as text."""
    while error is not None:
        if isinstance(error, AuthenticationError) or "InvalidAuthToken" in str(error):
            return True
        error = error.__cause__
    return False


def _start(spec: PoolSpec) -> Cluster:
    gpus = gpu_count()
    planned = _layout(spec, cpu_count(), gpus)
    try:
        return Cluster(planned, start(planned.count, gpus))
    except Exception as error:
        hint = "; on a busy machine another try may be quick enough" if _timed_out(error) else ""
        raise PoolError(f"Ray cannot start on this machine: {one_line(error)}{hint}") from error


def _timed_out(error: Exception) -> bool:
    """Ray raises a plain Exception where its processes do not answer in time."""
    return "timed out" in str(error)


def _layout(spec: PoolSpec, cpus: int, gpus: int) -> Layout:
    try:
        return layout(spec, cpus, gpus)
    except ValueError as error:
        raise PoolError(str(error)) from error
