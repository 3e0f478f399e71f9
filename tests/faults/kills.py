"""A campaign whose controller is killed again and again, at random moments.

`python -m tests.faults.kills --rounds 100` prints the report as JSON. The workers are real and run
quick entries; `--evaluator instant` leaves them out.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.faults.ledger import TWO_WORKERS, Campaign, assert_whole, kept
from tests.processes import alive

MODULES = {"workers": "tests.faults.campaign", "instant": "tests.cli.instant"}
LATEST_S = {"workers": 5.0, "instant": 1.5}
"""Half of the moments are spread over this time from the start of the process; the other half come
soon after something was recorded, so that the campaign gets on."""

SOON_S = 0.3
WAIT_S = 120.0


@dataclass
class Report:
    """What the kills did. `recorded` runs stood in the database at the end, of which `begun` were
    begun more than once because a controller died while they ran."""

    rounds: int
    seed: int
    evaluator: str
    before_any_record: int
    recorded: int
    begun: int
    lost: int
    seconds: float


def kill_again_and_again(
    folder: Path, rounds: int, seed: int, candidates: int, evaluator: str,
    workers: str = TWO_WORKERS, settings: dict[str, str] | None = None,
) -> Report:  # fmt: skip
    """Kills the controller `rounds` times, then runs the campaign to its end. AssertionError where
    something was lost, counted twice or left running."""
    started = time.monotonic()
    rng = random.Random(seed)
    delays = {"INSTANT_DELAY_S": "0.05", "PRIMEVO_DELAY_S": "0.05"}
    campaign = Campaign(folder, MODULES[evaluator], {**delays, **(settings or {})})
    campaign.configure(candidates, workers)
    early = lost = 0
    for number in range(rounds):
        before = campaign.rows() if campaign.recorded() is not None else {}
        process = campaign.go_on()
        if number % 2:
            time.sleep(rng.uniform(0, LATEST_S[evaluator]))
        else:
            _await_record(campaign, len(before))
            time.sleep(rng.uniform(0, SOON_S))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        there = campaign.recorded()
        after = campaign.rows() if there is not None else {}
        early += len(after) == len(before)
        lost += not kept(before, after)
    before = campaign.rows()
    campaign.finish()
    rows = campaign.rows()
    lost += not kept(before, rows)
    assert_whole(campaign, candidates)
    begun = 0
    if evaluator == "workers":
        begun = sum(times > 1 for times in campaign.begun().values())
        capacity = 2
        assert campaign.begun().total() <= len(rows) + capacity * rounds, "the budget was not kept"
        assert _all_end(campaign), "a candidate runs for ever"
    assert lost == 0
    return Report(
        rounds, seed, evaluator, early, len(rows), begun, lost, time.monotonic() - started
    )


def _await_record(campaign: Campaign, before: int) -> None:
    """Returns when more is recorded than before, or the campaign has ended."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        if (campaign.recorded() or 0) > before:
            return
        time.sleep(0.01)
    raise AssertionError("nothing was recorded")


def _all_end(campaign: Campaign) -> bool:
    """Whether the workers of dead controllers are gone, which on a cluster takes some seconds."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if not any(map(alive, campaign.processes())):
            return True
        time.sleep(0.2)
    return False


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--candidates", type=int, default=2000)
    parser.add_argument("--evaluator", choices=sorted(MODULES), default="workers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = kill_again_and_again(
            Path(folder), options.rounds, options.seed, options.candidates, options.evaluator
        )
    print(json.dumps(asdict(report)))


if __name__ == "__main__":
    main()
