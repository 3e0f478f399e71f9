"""The Ray that a pool starts for itself: it ends with its owner, leaves nothing behind, and nobody
outside can reach it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes import alive, descendants, wait_until
from workers.pool.local import PREFIX, sweep

ROOT = Path(__file__).parents[2]

DRIVER = """
import json, signal, sys, time
from workers.spec.outcome import Budget, Job
from workers.pool.pool import Pool
from workers.spec.pool import PoolSpec
from workers.spec.task import Task

signal.signal(signal.SIGINT, lambda *_: print(json.dumps("interrupted"), flush=True))
entries = "tests.workers.pool_entries"
pool = Pool(Task(), PoolSpec(count=1), entries + ":obey", entries + ":warm_up")

def run(command):
    pool.submit(Job(1, command, Budget("steps", 1), seed=0))
    reports = []
    while not reports:
        reports = pool.wait(60)
    outcome = reports[0].outcome
    print(json.dumps([outcome.status, outcome.reason]), flush=True)

run("ok")
print(json.dumps("sleeping"), flush=True)
run("sleep 2")
run("fault")
run("ok")
"""


@pytest.fixture
def driver() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts a process that has a Pool and a Ray of its own, in a process group of its own."""
    started = []

    def start(end: str) -> subprocess.Popen[str]:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER + end],
            cwd=ROOT, env=environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def sockets(process: int) -> set[str]:
    """The inodes of the sockets that a process has open."""
    try:
        links = [os.readlink(path) for path in Path(f"/proc/{process}/fd").iterdir()]
    except OSError:  # it has ended
        return set()
    return {link[8:-1] for link in links if link.startswith("socket:[")}


def listens(processes: set[int]) -> list[str]:
    """The addresses, as /proc/net writes them, on which one of the processes listens."""
    held = set().union(*map(sockets, processes))
    lines = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    return [field[1].partition(":")[0] for field in lines if field[3] == "0A" and field[9] in held]


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
"""127.0.0.1, the same as an IPv6 address, and ::1"""


def read(process: subprocess.Popen[str]) -> object:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def play(process: subprocess.Popen[str]) -> list[int]:
    """The driver's common part, with a Ctrl-C while a job runs. Returns the workers' ids."""
    status, first = read(process)  # type: ignore[misc]
    assert status == "completed"
    assert read(process) == "sleeping"
    os.killpg(process.pid, signal.SIGINT)
    assert read(process) == "interrupted"
    assert read(process) == ["completed", first]  # the job and its worker have survived
    status, reason = read(process)  # type: ignore[misc]
    assert (status, reason) == ("crashed", "its worker died 2 times: SIGSEGV")
    status, last = read(process)  # type: ignore[misc]
    return [int(first), int(last)]


@pytest.mark.slow
def test_own_ray_ends_with_close_and_leaves_no_logs_and_no_noise(driver) -> None:
    process = driver("print(json.dumps(str(pool._cluster.folder)), flush=True); pool.close()")
    workers = play(process)
    folder = Path(read(process))
    assert process.wait(30) == 0
    assert process.stderr.read() == ""
    assert not folder.exists()
    assert wait_until(lambda: not any(map(alive, workers)), 10)


@pytest.mark.slow
def test_nobody_outside_can_reach_a_driver_and_nothing_outlives_its_death(driver) -> None:
    process = driver("print(json.dumps(str(pool._cluster.folder)), flush=True); time.sleep(1000)")
    workers = play(process)
    folder = Path(read(process))
    family = descendants(process.pid)
    assert {workers[-1], *family} == family
    assert len(family) > 4
    addresses = listens({process.pid, *family})
    assert len(addresses) > 4
    assert set(addresses) <= LOOPBACK
    sweep()
    assert folder.exists()  # its owner lives
    process.kill()
    assert wait_until(lambda: not alive(workers[-1]), 20), "a worker holds its device"
    assert wait_until(lambda: not any(map(alive, family)), 40)
    sweep()
    assert not folder.exists()


OWNER = """
import sys, time
from workers.pool.local import _own_folder
print(_own_folder(sys.argv[1])[0], flush=True)
time.sleep(1000)
"""


def test_folders_go_with_their_owners_only(tmp_path: Path) -> None:
    start = [sys.executable, "-c", OWNER, str(tmp_path)]
    owners = [
        subprocess.Popen(start, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    dead, living = (Path(owner.stdout.readline().strip()) for owner in owners)  # type: ignore[union-attr]
    foreign = tmp_path / "primevo-other"
    foreign.mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(foreign)
    (dead / "log").touch()
    owners[0].kill()
    owners[0].wait()
    sweep(str(tmp_path))
    assert not dead.exists()
    assert living.exists()
    assert foreign.exists()
    owners[1].kill()
    owners[1].wait()
    sweep(str(tmp_path))
    assert not living.exists()
