"""Another user of the same machine, who knows the port but not the token, is turned away."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version

import pytest

from tests.faults.conftest import Driver

pytestmark = pytest.mark.faults

BY_DEFAULT = (2, 59)
"""The first Ray that asks for a token unless it is told not to."""

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Without it a client takes the machine's own address for 127.0.0.1, where nobody listens."""

CONNECT = "import sys, ray; ray.init(sys.argv[1]); print('connected')"


@pytest.mark.skipif(
    tuple(map(int, version("ray").split(".")[:2])) < BY_DEFAULT, reason="this Ray asks for none"
)
def test_nobody_connects_without_the_token(drive: Callable[..., Driver]) -> None:
    driver = drive("sleep 1000")
    _, address = driver.until("up")
    for token in ({}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "x" * 64}):
        command = ["timeout", "30", sys.executable, "-c", CONNECT, address]  # Ray tries for minutes
        environment = {**os.environ, **LOOPBACK, **token}
        answer = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert "connected" not in answer.stdout
        assert "InvalidAuthToken" in answer.stderr
    assert driver.ended(2) == {0: "completed", 1: "completed"}  # the driver is unharmed
