"""A campaign on a Ray cluster of machines in network namespaces, started by `ray start`: the one
that works is lost, and another joins in mid-campaign."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.ledger import Campaign, assert_whole, kept
from tests.faults.machines import Machines
from tests.processes import alive

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(
        os.getuid() != 0 or not (shutil.which("ip") and shutil.which("unshare")),
        reason="network namespaces need root, iproute2 and util-linux",
    ),
]

CANDIDATES = 30


def await_status(campaign: Campaign, word: str) -> str:
    """Why the campaign waits, as `status` tells it, once that holds the word."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        waiting = campaign.status()["waiting"] or ""
        if word in waiting:
            return str(waiting)
        time.sleep(0.5)
    raise AssertionError(f"status does not say {word!r}")


def test_a_machine_is_lost_and_another_joins(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, settings={"PRIMEVO_DELAY_S": "0.2"})
    with Machines(campaign.environment) as machines:
        workers = f"{{count: 2, cpus_per_worker: 1, address: '{machines.address}'}}"
        campaign.configure(CANDIDATES, workers)
        machines.add("first", cpus=2)
        launch = [*machines.on("head"), *campaign.command("launch", "c.yaml")]
        driver = subprocess.Popen(
            launch, cwd=tmp_path, env=machines.environment, text=True, stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            end = time.monotonic() + 120
            while (campaign.recorded() or 0) < 6:
                assert driver.poll() is None, driver.communicate()[1]
                assert time.monotonic() < end
                time.sleep(0.1)
            machines.lose("first")
            waiting = await_status(campaign, "free are")
            assert "needs 1 CPUs" in waiting
            assert "free are 0 CPUs" in waiting
            before = campaign.rows()
            machines.add("second", cpus=2)
            _, said = driver.communicate(timeout=200)
        finally:
            driver.kill()
        assert driver.returncode == 0, said
        rows = campaign.rows()
        assert kept(before, rows)
        assert_whole(campaign, CANDIDATES)
        hosts = {str(row[-1]).partition("/")[0] for row in rows.values()}
        assert hosts == {"first", "second"}
        begun = campaign.begun()
        assert max(begun.values()) <= 2
        assert begun.total() <= len(rows) + 2  # two ran when their machine was lost
    assert not any(map(alive, campaign.processes()))
