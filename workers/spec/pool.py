"""The worker pool as configuration, and how it is laid out on a machine. Imports no framework."""

from __future__ import annotations

from pydantic import Field

from workers.machine.backends import BACKENDS, Backend
from workers.machine.devices import Layout
from workers.spec.outcome import Budget
from workers.spec.task import Spec

AHEAD = 8
"""Processes that compile for one GPU by default: on an H200 they kept it in training steps for 87 %
of the time (docs/ahead.md)."""


class PoolSpec(Spec):
    """How many workers, on what share of the machine or cluster, and when one is killed."""

    count: int | None = Field(
        None, ge=1, description="workers; null: as many as the devices (without GPUs, CPUs) hold"
    )
    cpus_per_worker: int | None = Field(
        None, ge=1, description="CPU threads; null: 1 without GPUs, else an even share of the CPUs"
    )
    gpus_per_worker: float | None = Field(
        None, ge=0, le=1, description="share of one GPU; 0.5 puts two workers on it; null: 1 if any"
    )
    memory_limit_mb: int | None = Field(
        None, ge=64, description="GPU memory of one worker; null: it grows with what is needed"
    )
    address: str | None = Field(
        None, description="Ray cluster, 'auto' or host:port; null starts Ray on this machine"
    )
    ahead: int | None = Field(
        None, ge=0, le=64, description="candidates that are compiled beside the one in training, "
        "by as many processes for each worker, on a backend that can (jax); null: with a GPU to "
        "itself, one less than the worker has CPUs, at most 8, else 0"
    )  # fmt: skip
    timeout_factor: float = Field(
        3.0, ge=1, description="budgets in seconds: killed after amount * factor + allowance"
    )
    setup_allowance_s: float = Field(
        120.0, ge=0, description="budgets in seconds: allowance for building, compiling and scoring"
    )
    timeout_s: float = Field(
        3600.0, gt=0, description="other budgets: a candidate is killed after so many seconds"
    )
    start_timeout_s: float = Field(
        900.0, gt=0, description="a worker that is not warm after so many seconds is killed"
    )
    jobs_per_worker: int = Field(
        200, ge=1, description="a worker is replaced by a fresh process after so many candidates: "
        "frameworks do not give back all the memory of what they compiled (with workers.ahead: "
        "those that compile)"
    )  # fmt: skip
    memory_per_worker_mb: int | None = Field(
        None, ge=64, description="a worker that holds more memory than this after a candidate is "
        "replaced, too; null: its share of 80 % of the machine's or cluster's, at least 2000"
    )  # fmt: skip
    checkpoints_mb: int | None = Field(
        20_000, ge=0, description="what paused candidates may take of the disk (with "
        "search.budget.rule promote); where it is more, the worst lose their checkpoints, and "
        "would train again from the start; null: no limit"
    )  # fmt: skip
    spare: bool = Field(
        True, description="without GPUs: once a worker has died, keep a warm one in reserve"
    )

    @property
    def sharers(self) -> int:
        """Workers that may take turns on one device: a step may take so many times as long."""
        share = self.gpus_per_worker
        return int(1 / share + 1e-9) if share else 1

    def time_limit(self, budget: Budget) -> float:
        """Seconds from dispatch after which a job with this budget is killed; where it was compiled
        ahead, from when the device was free for it."""
        if budget.unit == "seconds":
            return budget.amount * self.timeout_factor + self.setup_allowance_s
        return self.timeout_s

    def compile_limit(self, budget: Budget) -> float:
        """Seconds after which a job that is compiled ahead is killed before its training."""
        return self.setup_allowance_s if budget.unit == "seconds" else self.timeout_s


def cannot(spec: PoolSpec, backend: Backend) -> str:
    """Why the backend cannot compile ahead as it is told to, with the remedy; empty if it can."""
    if not spec.ahead or backend.ahead:
        return ""
    able = ", ".join(row.name for row in BACKENDS.values() if row.ahead)
    return (
        f"workers.ahead is {spec.ahead}, but backend {backend.name} cannot train what another "
        f"process has compiled: set it to 0, or task.training.backend to one of: {able}"
    )


def ahead(spec: PoolSpec, backend: Backend, planned: Layout) -> int:
    """How many candidates are compiled beside each one in training, in this layout."""
    if spec.ahead is not None:
        return spec.ahead
    alone = backend.ahead and planned.gpus == 1.0
    return min(AHEAD, planned.cpus - 1) if alone else 0


def layout(spec: PoolSpec, cpus: int, gpus: int) -> Layout:
    """Lays the pool out on `cpus` processors and `gpus` GPUs. Raises ValueError where it cannot."""
    share = spec.gpus_per_worker if spec.gpus_per_worker is not None else float(gpus > 0)
    if share > 0:
        slots = gpus * int(1 / share + 1e-9)
        if gpus == 0:
            raise ValueError(
                f"workers.gpus_per_worker is {share}, but there is no GPU: set it to 0 or null"
            )
        if spec.count is not None and spec.count > slots:
            raise ValueError(
                f"workers.count is {spec.count}, but {gpus} GPU(s) at {share} each hold {slots}: "
                "lower count or gpus_per_worker"
            )
        count = spec.count or slots
        return Layout(count, spec.cpus_per_worker or max(1, cpus // count), share)
    threads = spec.cpus_per_worker or max(1, cpus // spec.count if spec.count else 1)
    return Layout(spec.count or max(1, cpus // threads), threads, 0.0)
