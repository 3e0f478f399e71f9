"""Who can connect to the Ray of a pool: nobody from outside, nor another user of the machine who
knows the port but not the token. It holds with Ray 2.55.0, which is the oldest that
`pyproject.toml` allows, and 2.60.0; before 2.52 Ray had no tokens."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.faults.conftest import Driver

pytestmark = pytest.mark.faults

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Without it a client takes the machine's own address for 127.0.0.1, where nobody listens."""

CONNECT = "import sys, ray; ray.init(sys.argv[1]); print('connected')"


def test_nobody_connects_without_the_token(drive: Callable[..., Driver]) -> None:
    driver = drive("sleep 1000")
    _, address = driver.until("up")
    command = ["timeout", "30", sys.executable, "-c", CONNECT, address]  # Ray tries for minutes
    callers = [
        subprocess.Popen(
            command, env={**os.environ, **LOOPBACK, **token}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for token in ({}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "x" * 64})
    ]  # fmt: skip
    for caller in callers:
        output, errors = caller.communicate()
        assert "connected" not in output
        assert "InvalidAuthToken" in errors
    assert driver.ended(2) == {0: "completed", 1: "completed"}  # the driver is unharmed


HERE, THERE = "10.213.77.1", "10.213.77.2"
KNOCK = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture
def neighbour() -> Iterator[str]:
    """A network namespace that is joined to this one as a second machine would be."""
    if os.getuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    name = f"pv{os.getpid()}"
    ip("netns", "add", name)
    try:
        ip("link", "add", name, "type", "veth", "peer", "name", "there", "netns", name)
        ip("addr", "add", f"{HERE}/24", "dev", name)
        ip("link", "set", name, "up")
        ip("-n", name, "addr", "add", f"{THERE}/24", "dev", "there")
        ip("-n", name, "link", "set", "there", "up")
        yield name
    finally:
        ip("netns", "del", name)


def reaches(neighbour: str, port: int) -> bool:
    command = ["ip", "netns", "exec", neighbour, sys.executable, "-c", KNOCK, HERE, str(port)]
    return subprocess.run(command, capture_output=True).returncode == 0


def test_another_machine_reaches_nothing(drive: Callable[..., Driver], neighbour: str) -> None:
    with socket.create_server(("0.0.0.0", 0)) as anybody:
        assert reaches(neighbour, anybody.getsockname()[1])
    driver = drive("sleep 1000")
    _, address = driver.until("up")
    assert not reaches(neighbour, int(address.rpartition(":")[2]))
