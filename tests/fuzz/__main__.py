"""Fuzzes the targets in turn: python -m tests.fuzz --minutes 60 [--target NAME] [--engine atheris]

Prints a JSON report: for each target the executions, the distinct refusals, the slowest input and
the findings, each with the input in hexadecimal digits. The exit code is 1 where anything was
found. An input that takes more than HANG_S seconds of CPU time, or WAIT_S by the clock, is a
finding; times in the report are of the CPU, too.

The engine `atheris` (pip install atheris) is guided by coverage, one target at a time, in a process
of its own for each; the engine `mutants`, the default, needs nothing and knows the words of each
format.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz.mutate import mutated
from tests.fuzz.report import Seen, kind

HANG_S = 20
WAIT_S = 300
TURN_S = 5.0
"""How long a target is fuzzed before it is the next one's turn."""


class Hang(Exception):
    """An input took too long."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--target", action="append", help="one of the targets; may be repeated")
    parser.add_argument("--engine", choices=("mutants", "atheris"), default="mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, help="a file for the report; default: stdout")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        return _atheris_worker(asked.worker, asked.minutes, asked.report)
    from tests.fuzz.targets import TARGETS

    names = asked.target or list(TARGETS)
    began = time.monotonic()
    engine = _with_atheris if asked.engine == "atheris" else fuzz
    seen = engine(names, asked.minutes * 60, asked.seed)
    report = {
        "engine": asked.engine,
        "seed": asked.seed,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "executions": sum(each["executions"] for each in seen.values()),
        "findings": sum(len(each["findings"]) for each in seen.values()),
        "targets": seen,
    }
    text = json.dumps(report, indent=1)
    if asked.report:
        asked.report.write_text(text + "\n")
    else:
        print(text)
    return int(report["findings"] > 0)


def fuzz(names: list[str], seconds: float, seed: int) -> dict[str, Any]:
    """Mutants of each target's seeds, in turn, for so many seconds in all."""
    from tests.fuzz.targets import TARGETS

    rng = random.Random(seed)
    seeds = {name: list(TARGETS[name].seeds()) for name in names}
    for name in names:  # what is imported on first use takes seconds
        TARGETS[name].attempt(seeds[name][0])
    seen = {name: Seen() for name in names}
    end = time.monotonic() + seconds
    turn = min(TURN_S, seconds / len(names))
    while time.monotonic() < end:
        for name in names:
            until = time.monotonic() + turn
            while time.monotonic() < until:
                one(name, mutated(rng.choice(seeds[name]), seeds[name], rng), seen[name])
    return {name: each.as_json() for name, each in seen.items()}


def one(name: str, data: bytes, seen: Seen) -> None:
    """One input, with what came of it noted."""
    from tests.fuzz.targets import TARGETS

    began = time.process_time()
    before = {each: signal.signal(each, _hang) for each in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, HANG_S)
    signal.alarm(WAIT_S)
    try:
        refusal = TARGETS[name].attempt(data)
    except Exception as error:
        if seen.found(data, error):
            print(f"{name}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
    else:
        seen.taken += refusal is None
        if refusal is not None:
            seen.refusals[kind(refusal)] += 1
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for each, handler in before.items():
            signal.signal(each, handler)
        took = time.process_time() - began
        seen.executions += 1
        seen.seconds += took
        seen.slowest_s = max(seen.slowest_s, took)


def _hang(number: int, frame: FrameType | None) -> None:
    what = f"{HANG_S} s of CPU time" if number == signal.SIGPROF else f"{WAIT_S} s"
    raise Hang(f"more than {what}")


def _with_atheris(names: list[str], seconds: float, seed: int) -> dict[str, Any]:
    """Each target in a process, one after the other: the engine ends its process."""
    found = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder, "report.json")
            subprocess.run(
                [sys.executable, "-m", "tests.fuzz", "--worker", name, "--report", str(report),
                 "--minutes", str(seconds / 60 / len(names))],
                env={**os.environ, "FUZZ_SEED": str(seed)}, stderr=subprocess.DEVNULL, check=False,
            )  # fmt: skip
            found[name] = (
                json.loads(report.read_text()) if report.exists()
                else {"executions": 0, "findings": {"the engine died": {}}}
            )  # fmt: skip
    return found


def _atheris_worker(name: str, minutes: float, report: Path) -> int:
    import atheris

    with atheris.instrument_imports(include=["primitives", "search", "workers"]):
        from tests.fuzz.targets import TARGETS
    seen, end = Seen(), time.monotonic() + minutes * 60
    corpus = Path(tempfile.mkdtemp(prefix="corpus-"))
    for number, data in enumerate(TARGETS[name].seeds()):
        (corpus / str(number)).write_bytes(data)

    TARGETS[name].attempt(TARGETS[name].seeds()[0])

    def attempt(data: bytes) -> None:
        one(name, data, seen)
        if time.monotonic() > end:
            report.write_text(json.dumps(seen.as_json()))
            shutil.rmtree(corpus, ignore_errors=True)
            os._exit(0)

    atheris.Setup(
        [
            sys.argv[0],
            str(corpus),
            "-max_len=20000",
            "-timeout=0",
            f"-seed={os.environ['FUZZ_SEED']}",
        ],
        attempt,
    )
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
