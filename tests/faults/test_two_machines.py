"""One PostgreSQL database for the campaigns of two machines, each a network namespace."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from search.campaign import queries
from search.campaign.controller import Controller
from search.storage.store import Store
from tests.postgresql import Server, serving
from tests.search.instant import InstantEvaluator, launch
from tests.search.recorded import ask, everything

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]

RUN = """\
import sys
from search.errors import PrimevoError
from search.storage import database
from tests.search.instant import main
database.KEEPALIVE_S = 1
try:
    main(*sys.argv[1:])
except PrimevoError as error:
    sys.exit(str(error))
"""
"""Runs a campaign; a machine that falls silent is noticed in seconds."""


class Machine:
    """A network namespace that reaches this one by a link of its own."""

    def __init__(self, number: int) -> None:
        self.name = f"pm{os.getpid()}-{number}"[:15]
        self.server = f"10.214.{number}.1"
        ip("netns", "add", self.name)
        try:
            self._join(number)
        except BaseException:
            self.remove()
            raise

    def _join(self, number: int) -> None:
        ip("link", "add", self.name, "type", "veth", "peer", "name", "there", "netns", self.name)
        ip("addr", "add", f"{self.server}/24", "dev", self.name)
        ip("link", "set", self.name, "up")
        ip("-n", self.name, "addr", "add", f"10.214.{number}.2/24", "dev", "there")
        ip("-n", self.name, "link", "set", "there", "up")

    def run(self, url: str, campaign: str, delay_s: float = 0.02) -> subprocess.Popen[str]:
        """A controller with one worker on this machine."""
        url = url.replace("127.0.0.1", self.server)
        command = ["ip", "netns", "exec", self.name, sys.executable, "-c", RUN]
        return subprocess.Popen(
            [*command, url, campaign, "1", str(delay_s)], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def plug(self, state: str) -> None:
        """Pulls the cable out (down), or puts it back (up)."""
        ip("link", "set", self.name, state)

    def remove(self) -> None:
        ip("netns", "del", self.name)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture(scope="module")
def machines() -> Iterator[tuple[Machine, Machine]]:
    if os.getuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    made: list[Machine] = []
    try:
        made += [Machine(number) for number in (1, 2)]
        yield made[0], made[1]
    finally:
        for machine in made:
            machine.remove()


@pytest.fixture(scope="module")
def server(machines: tuple[Machine, Machine]) -> Iterator[Server]:
    with serving("*", ["10.214.0.0/16"]) as started:
        yield started


@pytest.fixture
def url(server: Server) -> str:
    return server.new_database()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object]]:
    """What each campaign records where nobody else is there and nothing happens, by name."""
    url = f"sqlite:///{tmp_path_factory.mktemp('alone')}/alone.db"
    with Store.open(url) as store:
        for name, seed in (("a", 1), ("b", 2)):
            Controller(store, launch(store, name, seed), InstantEvaluator()).run()
    return {name: what_counts(url, name) for name in ("a", "b")}


def what_counts(url: str, name: str) -> list[object]:
    """Its rows without the times, each table's last column."""
    _, candidates, evaluations, _ = everything(url, name)
    return [row[1:-1] for row in (*candidates, *evaluations)]


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def recorded(url: str, campaign: str) -> int:
    statement = (
        "SELECT count(*) FROM evaluations e JOIN campaigns c ON c.id = e.campaign_id "
        "WHERE c.name = :name"
    )
    return int(ask(url, statement, name=campaign)[0][0])  # type: ignore[call-overload]


def test_two_campaigns_at_once_and_a_third_process_is_refused(
    machines: tuple[Machine, Machine], url: str, alone: dict[str, list[object]]
) -> None:
    with Store.open(url) as store:
        launch(store, "a", 1)
        launch(store, "b", 2)
        first, second = machines[0].run(url, "a", 0.1), machines[1].run(url, "b", 0.1)
        wait_for(lambda: recorded(url, "a") > 3 and recorded(url, "b") > 3)
        assert [line.state for line in queries.campaigns(store)] == ["running", "running"]
        third = machines[1].run(url, "a")
        output, errors = third.communicate(timeout=60)
        assert (third.returncode, output) == (1, "")
        assert f"campaign 'a' is being run by process {first.pid} on " in errors
        for process in (first, second):
            assert process.communicate(timeout=120) == ("done\n", "")
        assert [line.state for line in queries.campaigns(store)] == ["finished", "finished"]
    for name, rows in alone.items():
        assert what_counts(url, name) == rows


def test_killed_on_one_machine_and_gone_on_with_on_the_other(
    machines: tuple[Machine, Machine], url: str, alone: dict[str, list[object]]
) -> None:
    with Store.open(url) as store:
        launch(store, "a", 1)
        for turn, stop in enumerate((5, 25, 45)):
            process = machines[turn % 2].run(url, "a")
            wait_for(lambda stop=stop: recorded(url, "a") >= stop)  # type: ignore[misc]
            process.send_signal(signal.SIGKILL)
            process.communicate()
            wait_for(lambda: queries.campaigns(store)[0].state == "interrupted", 10)
        assert machines[1].run(url, "a").communicate(timeout=60) == ("done\n", "")
    assert what_counts(url, "a") == alone["a"]


def test_a_machine_that_falls_silent_gives_its_campaign_back(
    machines: tuple[Machine, Machine], url: str, alone: dict[str, list[object]]
) -> None:
    """Its cable is pulled: no process ends there, no connection is closed. When it is back, the
    other machine has the campaign, and what it recorded stands."""
    with Store.open(url) as store:
        launch(store, "a", 1)
        silent = machines[0].run(url, "a", 0.2)
        try:
            wait_for(lambda: recorded(url, "a") > 3)
            machines[0].plug("down")
            wait_for(lambda: queries.campaigns(store)[0].state == "interrupted", 30)
        finally:
            machines[0].plug("up")
        other = machines[1].run(url, "a")
        output, errors = silent.communicate(timeout=60)
        assert (silent.returncode, output) == (1, "") and "storage postgresql://" in errors
        assert other.communicate(timeout=60) == ("done\n", "")
    assert what_counts(url, "a") == alone["a"]
