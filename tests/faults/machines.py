"""Machines of a Ray cluster: each is a network namespace with a host name and Ray processes of its
own. They are joined by a switch that lies in the namespace of the first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

NETWORK = "10.213.78"
PORT = 6379
RAY = str(Path(sys.executable).with_name("ray"))
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "c" * 64}


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


class Machines(AbstractContextManager["Machines"]):
    """A head machine without CPUs for work, and those that `add` starts. All ask for TOKEN.

    `environment` is that of their processes. Needs root, iproute2 and util-linux."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = {**environment, **TOKEN, "RAY_DISABLE_IMPORT_WARNING": "1"}
        self._prefix = f"pv{os.getpid()}"
        self._names: list[str] = []
        self._folder = tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True)

    @property
    def address(self) -> str:
        return f"{NETWORK}.1:{PORT}"

    def __enter__(self) -> Machines:
        try:
            self._boot("head", ["--head", f"--port={PORT}", f"--temp-dir={self._folder.name}",
                                "--include-dashboard=false", "--num-cpus=0"])  # fmt: skip
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name in self._names:
            self.lose(name)
        for name in reversed(self._names):
            ip("netns", "del", self.inside(name))
        self._folder.cleanup()

    def inside(self, name: str) -> str:
        """The network namespace of a machine."""
        return f"{self._prefix}-{name}"

    def on(self, name: str, *command: str) -> list[str]:
        """A command line that runs a command on a machine."""
        uts = ["unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', name]
        return ["ip", "netns", "exec", self.inside(name), *uts, *command]

    def add(self, name: str, cpus: int) -> None:
        """Starts a machine that joins the cluster."""
        self._boot(name, [f"--address={self.address}", f"--num-cpus={cpus}"])

    def lose(self, name: str) -> None:
        """Kills all that runs on a machine, at once."""
        for process in ip("netns", "pids", self.inside(name)).split():
            try:
                os.kill(int(process), signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _boot(self, name: str, options: list[str]) -> None:
        self._plug_in(name)
        own = f"{NETWORK}.{len(self._names)}"
        start = [RAY, "start", f"--node-ip-address={own}", "--disable-usage-stats", *options]
        memory = f"--object-store-memory={80 * 2**20}"
        answer = subprocess.run(
            self.on(name, *start, memory), env=self.environment, capture_output=True, text=True
        )
        assert answer.returncode == 0, answer.stdout + answer.stderr

    def _plug_in(self, name: str) -> None:
        """A namespace with a cable to the head's switch, and a loopback interface."""
        space, head = self.inside(name), self.inside("head")
        ip("netns", "add", space)
        self._names.append(name)
        ip("-n", space, "link", "set", "lo", "up")
        address = f"{NETWORK}.{len(self._names)}/24"
        if name == "head":
            ip("-n", head, "link", "add", "switch", "type", "bridge")
            ip("-n", head, "addr", "add", address, "dev", "switch")
            ip("-n", head, "link", "set", "switch", "up")
            return
        ip("-n", head, "link", "add", name, "type", "veth", "peer", "name", "eth", "netns", space)
        ip("-n", head, "link", "set", name, "master", "switch", "up")
        ip("-n", space, "addr", "add", address, "dev", "eth")
        ip("-n", space, "link", "set", "eth", "up")
