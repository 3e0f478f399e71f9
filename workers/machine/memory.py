"""Memory of this machine and of this process, in MB (2^20 bytes)."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

MB = 2**20

_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
"""Where a container's limit stands, below /sys/fs/cgroup: version 2, then 1."""


def total_mb(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """What this process may use: the machine's memory, or the container's limit if that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in _LIMITS:
        try:
            return min(total, int((cgroup / name).read_text())) / MB
        except (OSError, ValueError):  # no such file, or no limit: "max"
            continue
    return total / MB


def resident_mb() -> float:
    """What this process holds now; on macOS, which does not tell, the most it ever held."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / MB if sys.platform == "darwin" else most / 1024
    return pages * os.sysconf("SC_PAGE_SIZE") / MB
