"""What tests ask of processes, and wait for."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def alive(process: int) -> bool:
    """Whether a process runs or is stopped; a zombie does not count."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def descendants(process: int) -> set[int]:
    """Every process that descends from this one."""
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True
    ).stdout.split()
    found = {int(child) for child in children}
    return found.union(*(descendants(child) for child in found))


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition holds within this time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()
