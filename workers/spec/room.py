"""How much memory one worker has on this machine. Imports no framework."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from workers.machine.devices import cpu_count, gpu_count, gpu_memory_mb
from workers.machine.memory import total_mb
from workers.spec.pool import PoolSpec, layout


@dataclass(frozen=True, slots=True)
class Room:
    """`mb` is what a worker has, and `meaning` where that comes from, as a message says it."""

    mb: float
    meaning: str


def room(spec: PoolSpec) -> Room | None:
    """What one worker of this pool would have here; None where that cannot be told: the pool does
    not fit this machine, or its GPU does not say what it has."""
    gpus = gpu_count()
    try:
        laid_out = layout(spec, cpu_count(), gpus)
        if laid_out.gpus == 0:
            return _shared(total_mb(), laid_out.count, "this machine's memory")
        if spec.memory_limit_mb is not None:
            return Room(spec.memory_limit_mb, "workers.memory_limit_mb")
        return _shared(gpu_memory_mb(), int(1 / laid_out.gpus + 1e-9), "a GPU's memory")
    except (ValueError, IndexError, OSError, subprocess.SubprocessError):
        return None


def _shared(mb: float, workers: int, what: str) -> Room:
    if workers == 1:
        return Room(mb, what)
    return Room(mb / workers, f"{what} of {mb:,.0f} MB, shared by {workers} workers")
