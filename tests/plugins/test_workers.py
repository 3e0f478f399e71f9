"""Workers get the modules that the driver has: real Ray processes, and a plug-in in a folder that
nobody but the driver looks in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from primitives.language.text import render
from primitives.programs.seeds import load_seed
from tests.plugins.conftest import EXAMPLE, Write
from workers.plugins import PluginError
from workers.pool.pool import Pool, PoolError
from workers.spec.outcome import Budget, Job, Report
from workers.spec.pool import PoolSpec
from workers.spec.task import DataSpec, Task

ROOT = Path(__file__).parents[2]
ENTRIES = "tests.workers.pool_entries"
ONE = PoolSpec(count=1, cpus_per_worker=1)


def outcome_of(pool: Pool, dna: str) -> Report:
    pool.submit(Job(0, dna, Budget("steps", 3), seed=0))
    [report] = pool.wait(90)
    return report


def test_a_worker_trains_on_a_plugins_corpus(
    ray_session: None, example: None, tiny_task: Task
) -> None:
    """Of the product's own entry and warm-up: the corpus is asked for before the first job."""
    from workers.plugins import load

    load(["primevo_example.corpus"])
    data = DataSpec(source="counting", options={"documents": 7})
    task = tiny_task.model_copy(update={"data": data})
    with Pool(task, ONE, plugins=["primevo_example.corpus"]) as pool:
        outcome = outcome_of(pool, render(load_seed("transformer"))).outcome
    assert (outcome.status, outcome.steps) == ("completed", 3)
    assert outcome.val_loss is not None


def test_a_plugin_that_workers_cannot_load_ends_the_pool_with_the_reason(
    ray_session: None, write: Write
) -> None:
    """It loads in the driver, as one may that depends on what only the driver's machine has."""
    write(
        "primevo_choosy.py",
        f"import os\ndef register():\n  assert os.getpid() == {os.getpid()}, 'wrong machine'\n",
    )
    with Pool(Task(), ONE, f"{ENTRIES}:obey", f"{ENTRIES}:warm_up", ["primevo_choosy"]) as pool:
        pool.submit(Job(0, "ok", Budget("steps", 3), seed=0))
        with pytest.raises(
            PoolError, match=r"PluginError: plug-in 'primevo_choosy'.*wrong machine"
        ):
            pool.wait(60)


def test_a_missing_plugin_is_refused_before_anything_starts() -> None:
    with pytest.raises(PluginError, match="no plug-in 'primevo_nothing'"):
        Pool(Task(), plugins=["primevo_nothing"])


SERVER = """
import ray, sys
context = ray.init(address="local", num_cpus=2, num_gpus=0, include_dashboard=False,
                   log_to_driver=False, object_store_memory=80 * 2**20, _temp_dir=sys.argv[1])
print(context.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_")},
    "PYTHONPATH": str(ROOT),
}


def token(letter: str) -> dict[str, str]:
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": letter * 64}


DRIVER = """
import json, sys
sys.path.append(sys.argv[2])
from workers.pool.pool import Pool
from workers.spec.outcome import Budget, Job
from workers.spec.pool import PoolSpec
from workers.spec.task import Task

entries = "tests.workers.pool_entries"
spec = PoolSpec(count=1, cpus_per_worker=1, address=sys.argv[1])
plugins = ["primevo_example.corpus", "primevo_file"]
with Pool(Task(), spec, entries + ":where", entries + ":warm_up", plugins) as pool:
    pool.submit(Job(0, "primevo_example.corpus primevo_file", Budget("steps", 1), seed=0))
    print(pool.wait(120)[0].outcome.reason)
"""


@pytest.fixture
def session_folder() -> Iterator[str]:
    """A short path, because the paths of Ray's sockets must be short."""
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield folder


@pytest.fixture
def address(session_folder: str) -> Iterator[str]:
    """A cluster of one node that asks for a token."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, session_folder],
        cwd="/", env=ENVIRONMENT | token("a"), text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as server:  # fmt: skip
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.communicate()


def drive(address: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", DRIVER, address, str(folder)],
        cwd="/", env=ENVIRONMENT | environment, text=True, capture_output=True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_cluster_is_sent_the_plugins(tmp_path: Path, address: str) -> None:
    """Its machines need not see the driver's folders: the source travels, and is found first."""
    (tmp_path / "primevo_file.py").write_text("def register(): pass\n")
    (tmp_path / "primevo_example").symlink_to(EXAMPLE / "primevo_example")
    run = drive(address, tmp_path, token("a"))
    assert run.stdout, run.stderr[-2000:]
    places = json.loads(run.stdout)
    assert len(places) == 2
    assert all("py_modules_files" in place for place in places), places


@pytest.mark.slow
def test_a_refused_token_is_told_with_what_to_set(tmp_path: Path, address: str) -> None:
    (tmp_path / "primevo_file.py").write_text("def register(): pass\n")
    (tmp_path / "primevo_example").symlink_to(EXAMPLE / "primevo_example")
    home = {"HOME": str(tmp_path)}  # where Ray would find a token
    for environment in ({"RAY_AUTH_MODE": "token", **home}, token("b")):
        run = drive(address, tmp_path, environment)
        last = run.stderr.strip().splitlines()[-1]
        assert last.startswith("workers.pool.cluster.PoolError: cannot join the Ray cluster"), last
        assert "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN=" in last
