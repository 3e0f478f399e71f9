"""Candidates that stop, grow, fault and kill their workers, in one campaign with real workers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.ledger import Campaign, assert_whole
from tests.processes import alive

pytestmark = pytest.mark.faults

CGROUPS = Path("/sys/fs/cgroup")
CANDIDATES = 24
LIMIT_MB = 2000
"""For a driver, its Ray and two workers that hold no framework, which hold about 1,000."""


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A control group whose processes have LIMIT_MB of memory together."""
    old = CGROUPS / "memory"
    parent = old if old.is_dir() else CGROUPS
    group = parent / f"primevo-{os.getpid()}"
    limit = "memory.limit_in_bytes" if old.is_dir() else "memory.max"
    try:
        group.mkdir()
        (group / limit).write_text(str(LIMIT_MB << 20))
    except OSError as error:
        pytest.skip(f"control groups need root and a writable {parent}: {error}")
    yield group
    end = time.monotonic() + 20
    while time.monotonic() < end and (group / "cgroup.procs").read_text():
        time.sleep(0.1)
    group.rmdir()


def test_no_candidate_harms_the_campaign(tmp_path: Path, memory_group: Path) -> None:
    campaign = Campaign(tmp_path)
    campaign.configure(CANDIDATES, "{count: 2, cpus_per_worker: 1, timeout_s: 25}")
    accidents = {2: "stop", 3: "grow", 5: "fault", 7: "kill", 8: "kill once", 9: "raise"}
    campaign.plan(accidents)
    process = campaign.start("launch", "c.yaml")
    (memory_group / "cgroup.procs").write_text(str(process.pid))
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said

    status = assert_whole(campaign, CANDIDATES)
    rows = {id: row for (id, kind, _), row in campaign.rows().items() if kind == "search"}
    assert rows[2][1:3] == ("timed_out", "killed at its time limit of 25 s")
    assert rows[3][1] in ("crashed", "out_of_memory")
    assert "memory" in rows[3][2]
    assert rows[5][1:3] == ("crashed", "its worker died 2 times: SIGSEGV")
    assert rows[7][1] == "crashed"
    assert "killed from outside" in rows[7][2]
    assert rows[8][1] in ("completed", "diverged")
    assert rows[9][1:3] == ("crashed", "ValueError: a bug of the framework")
    told = {failure["first"]: failure for failure in status["failures"]}
    assert told[2]["reason"] == rows[2][2]
    assert told[5]["outcome"] == "crashed"

    begun = campaign.begun()
    expected = {2: 1, 3: 2, 5: 2, 7: 2, 8: 2, 9: 1}
    for (id, seed), times in begun.items():
        final = (id, "final", seed) in campaign.rows()
        assert times == (1 if final else expected.get(id, 1)), (id, times)
    assert not any(map(alive, campaign.processes())), "a candidate runs for ever"
