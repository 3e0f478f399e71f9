"""Candidates and runs to record."""

from __future__ import annotations

import math

from search.storage.entries import CopiedEvaluation, Entry, NewCandidate, NewEvaluation
from search.storage.events import Ended, Event, Proposed
from workers.spec.outcome import Budget, Hurdle, Measurement, Outcome

BUDGET = Budget("steps", 175.0, (Hurdle(25.0, 3.5), Hurdle(75.0)))
OUTCOME = Outcome(
    "completed", val_loss=2.5, val_bpb=3.6, params=3_000_000_000, flops_per_token=5,
    step_time_s=0.1, steps=75, tokens=10**10, train_seconds=7.5, setup_seconds=0.5,
    hurdles_passed=1, curve=(Measurement(25, 100, 2.5, 3.0), Measurement(75, 300, 7.5, 2.5)),
    active_params=7, metrics={
        "activation_bytes": 4096, "bytes_per_token": 512, "experts_used": 0.75,
        "experts_unevenness": 0.2, "experts_gate_unevenness": 0.3,
        "experts_max_violation": 1.5, "experts_dropped": 0.1,
    },
)  # fmt: skip


def candidate(id: int, twin: int | None = None) -> NewCandidate:
    event = Proposed(id, id - 1 or None, "insert", f"{twin or id:032x}", twin, {"too long": id})
    return NewCandidate(event, f"program {id}")


def evaluation(sequence: int, id: int, outcome: Outcome = OUTCOME) -> NewEvaluation:
    end = Ended.of(sequence, id, "search", 1000 + id, outcome)
    return NewEvaluation(end, BUDGET, outcome, "host/1")


def copy(sequence: int, id: int, original: int) -> CopiedEvaluation:
    end = Ended.of(sequence, id, "search", 1000 + original, OUTCOME)
    return CopiedEvaluation(end, original)


HISTORY: list[Entry] = [
    candidate(1), candidate(2), evaluation(1, 2), evaluation(2, 1),
    candidate(3, twin=2), copy(3, 3, original=2), candidate(4),
    evaluation(4, 4, Outcome("diverged", "loss is not finite", val_loss=math.nan)),
]  # fmt: skip


def in_order(entries: list[Entry]) -> list[Event]:
    return sorted((entry.event for entry in entries), key=lambda event: isinstance(event, Ended))
