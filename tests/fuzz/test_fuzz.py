"""A short run of the fuzzer, the same one each time; a longer one is `python -m tests.fuzz`."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.__main__ import fuzz, one
from tests.fuzz.mutate import mutated
from tests.fuzz.report import Seen, kind
from tests.fuzz.targets import TARGETS, Target


def run(name: str, count: int, seed: int = 0) -> Seen:
    rng, seeds, seen = random.Random(seed), list(TARGETS[name].seeds()), Seen()
    TARGETS[name].attempt(seeds[0])  # what is imported on first use takes seconds
    for data in seeds[:20]:
        one(name, data, seen)
    for _ in range(count):
        one(name, mutated(rng.choice(seeds), seeds, rng), seen)
    return seen


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if not target.slow])
def test_nothing_is_found_in_a_second(name: str) -> None:
    count = {"constant": 2000, "config": 25, "checkpoint": 15}.get(name, 150)
    seen = run(name, count)
    assert seen.findings == {}
    assert seen.executions > count and seen.taken > 0 and len(seen.refusals) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.slow])
def test_nothing_is_found_in_what_takes_longer(name: str) -> None:
    seen = run(name, {"database file": 100, "export": 25}.get(name, 6))
    assert seen.findings == {} and seen.taken > 0


def test_a_finding_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes) -> str | None:
        if b"\0" in data:
            raise KeyError("no such thing")
        return "refused: 'it' at 17" if len(data) % 2 else None

    monkeypatch.setitem(TARGETS, "broken", Target("broken", lambda: [b"some text"], broken))
    found = fuzz(["broken"], 0.3, seed=1)["broken"]
    assert found["executions"] > 100 and 0 < found["taken"] < found["executions"]
    assert found["distinct_refusals"] == 1
    assert found["commonest_refusals"] == ["refused: '...' at 0"] == [kind("refused: 'x' at 5")]
    (finding,) = found["findings"].values()
    assert "no such thing" in finding["error"] and b"\0" in bytes.fromhex(finding["input"])


def test_it_runs_as_a_script(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "tests.fuzz", "--minutes", "0.01", "--target", "constant"]
    done = subprocess.run([*command, "--report", str(report)], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    made = json.loads(report.read_text())
    assert made["findings"] == 0 and made["executions"] > 10
    assert set(made["targets"]) == {"constant"}
