"""The driver as a fixture, and what tests ask of the processes below it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import descendants

ROOT = Path(__file__).parents[2]


class Driver:
    """A process of `tests.faults.driver`."""

    def __init__(self, commands: tuple[str, ...]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.driver", *commands],
            cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def read(self) -> list[Any]:
        """The next event."""
        assert self.process.stdout is not None
        line = "\n"
        while line and not line.startswith("["):  # Ray prints there, too
            line = self.process.stdout.readline()
        assert line, f"the driver ended: {self.process.stderr.read()}"  # type: ignore[union-attr]
        event: list[Any] = json.loads(line)
        return event

    def until(self, name: str) -> list[Any]:
        """The next event of that name."""
        while (event := self.read())[0] != name:
            pass
        return event

    def ended(self, count: int) -> dict[int, str]:
        """The status by job of the next `count` reports; each job has one."""
        events = [self.until("ended") for _ in range(count)]
        statuses = {job: status for _, job, status, _ in events}
        assert len(statuses) == count
        return statuses

    def kill(self, server: str) -> None:
        """SIGKILL to a server of Ray: raylet or gcs_server."""
        found = [process for process in descendants(self.process.pid) if named(process, server)]
        assert len(found) == 1
        os.kill(found[0], signal.SIGKILL)


def named(process: int, server: str) -> bool:
    program = Path(f"/proc/{process}/cmdline").read_bytes().partition(b"\0")[0]
    return program.decode().endswith(f"/{server}")


@pytest.fixture
def drive() -> Iterator[Callable[..., Driver]]:
    """Starts drivers, and ends them."""
    started: list[Driver] = []

    def start(*commands: str) -> Driver:
        started.append(Driver(commands))
        return started[-1]

    yield start
    for driver in started:
        driver.process.kill()
        driver.process.communicate()
