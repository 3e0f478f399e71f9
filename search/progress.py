"""What a display shows of a campaign: frozen snapshots, taken from the controller's state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from workers.outcome import Unit

Phase = Literal["seeds", "search", "final", "done"]


@dataclass(frozen=True, slots=True)
class Score:
    """A candidate with its fitness (nats per token) and its bits per byte, both on validation."""

    id: int
    fitness: float
    val_bpb: float | None


@dataclass(frozen=True, slots=True)
class FinalRow:
    """One program of the final phase: losses and bits per byte, one for each completed run;
    `failed` holds the outcomes of the other runs. The winner is chosen by the validation losses, so
    that the test split, which all else here speaks of, stays unseen by any choice."""

    id: int
    is_seed: bool
    planned: int
    val_losses: tuple[float, ...]
    test_losses: tuple[float, ...]
    test_bpbs: tuple[float, ...]
    failed: tuple[str, ...]

    @property
    def loss(self) -> float | None:
        return fmean(self.test_losses) if self.test_losses else None

    @property
    def bpb(self) -> float | None:
        return fmean(self.test_bpbs) if self.test_bpbs else None

    @property
    def loss_deviation(self) -> float | None:
        """Sample standard deviation over runs; None for fewer than two."""
        return stdev(self.test_losses) if len(self.test_losses) > 1 else None

    @property
    def bpb_deviation(self) -> float | None:
        return stdev(self.test_bpbs) if len(self.test_bpbs) > 1 else None


@dataclass(frozen=True, slots=True)
class Progress:
    """A campaign at one moment.

    `candidates` is the campaign's total, `recorded` those proposed so far, `pending` those of them
    without an outcome, `outcomes` the trained ones by how they ended (duplicates not among them).
    Budget amounts are in `unit` and count completed runs: `spent` by training, `saved_by_hurdles`
    against training each in full, `saved_by_duplicates` for outcomes taken over. `stopped_at`
    counts the candidates that each hurdle stopped. `seed` is the first seed program.
    """

    phase: Phase
    candidates: int
    recorded: int
    pending: int
    outcomes: Mapping[str, int]
    rejected: Mapping[str, int]
    duplicates: int
    unit: Unit
    spent: float
    saved_by_duplicates: float
    saved_by_hurdles: float
    stopped_at: tuple[int, ...]
    best: Score | None
    seed: Score | None
    finals_done: int
    finals_planned: int

    @property
    def trained(self) -> int:
        """Candidates that were trained to an outcome."""
        return sum(self.outcomes.values())

    @property
    def gain(self) -> float | None:
        """How far the best candidate is under the first seed program, in bits per byte."""
        if self.best is None or self.seed is None:
            return None
        if self.best.val_bpb is None or self.seed.val_bpb is None:
            return None
        return self.seed.val_bpb - self.best.val_bpb


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What only the running controller knows, left in the database about once a second.

    `running` jobs on `capacity` slots; `waiting` says why nothing runs, "" otherwise; `eta_s` is
    None until it can be told; `at` is in seconds since the epoch, UTC.
    """

    at: float
    running: int
    capacity: int
    waiting: str
    eta_s: float | None
    host: str
    pid: int
