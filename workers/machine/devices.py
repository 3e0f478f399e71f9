"""The processors and GPUs of this machine, and a process' share of them. Imports no framework."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    """Workers to run side by side; each gets `cpus` threads and `gpus` of one GPU."""

    count: int
    cpus: int
    gpus: float


def cpu_count() -> int:
    """Processors that this process may use: its affinity, under the container's quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(count, _quota(Path("/sys/fs/cgroup")) or count))


def _quota(cgroup: Path) -> int | None:
    """Whole processors in the cgroup's CPU quota (version 2, then 1); None where there is none."""
    try:
        limit, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    return None if limit in ("max", "-1") else max(1, int(limit) // int(period))


def processor_name() -> str:
    """The processor by its vendor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def gpu_count() -> int:
    """NVIDIA GPUs that this process may use, without loading a framework or a driver library."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        listed = [device.strip() for device in visible.split(",")]
        return len(listed) if all(listed) and "-1" not in listed else 0
    if shutil.which("nvidia-smi") is None:
        return 0
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in answer.stdout.splitlines())


def gpu_memory_mb() -> int:
    """Memory of the first GPU."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    return int(answer.stdout.split()[0])
