"""The controller is killed at random moments, and asked for twice at once."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.faults.kills import kill_again_and_again
from tests.faults.ledger import Campaign, assert_whole

pytestmark = pytest.mark.faults


@pytest.mark.parametrize(
    ("evaluator", "rounds", "candidates"), [("instant", 15, 250), ("workers", 5, 60)]
)
def test_twenty_random_moments(
    tmp_path: Path, evaluator: str, rounds: int, candidates: int
) -> None:
    report = kill_again_and_again(tmp_path, rounds, 1, candidates, evaluator)
    assert report.lost == 0
    assert report.recorded > rounds


def test_two_resumes_at_once(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, "tests.cli.instant", {"INSTANT_DELAY_S": "0.1"})
    campaign.configure(40)
    first = campaign.start("launch", "c.yaml")
    while (campaign.recorded() or 0) < 3:
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert "ended without a word" in campaign.status()["stopped"]
    both = [campaign.start("resume", "c") for _ in range(2)]
    ends = {process.communicate(timeout=120)[1]: process.returncode for process in both}
    assert sorted(ends.values()) == [0, 1]
    [refusal] = [said for said, code in ends.items() if code == 1]
    assert "is being run by process" in refusal
    assert_whole(campaign, 40)
