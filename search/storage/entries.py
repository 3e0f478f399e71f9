"""What a controller records, and its rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Dialect, insert
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.sql.compiler import SQLCompiler

from search.storage.events import Ended, Proposed, finite
from search.storage.models import Base
from workers.spec.outcome import Budget, Outcome


@dataclass(frozen=True, slots=True)
class NewCandidate:
    """A proposed candidate with its program in text form."""

    event: Proposed
    dna: str


@dataclass(frozen=True, slots=True)
class NewEvaluation:
    """An ended training run, as it was asked for and as it came back. `paused_at` is the hurdle,
    from 0, at which an earlier stage of the run was paused and recorded."""

    event: Ended
    budget: Budget
    outcome: Outcome
    worker: str
    paused_at: int | None = None


@dataclass(frozen=True, slots=True)
class CopiedEvaluation:
    """A duplicate's outcome: that of the search run of candidate `original`."""

    event: Ended
    original: int


Entry = NewCandidate | NewEvaluation | CopiedEvaluation


class Insert:
    """An INSERT of one row, compiled once and given to the driver: a controller writes at every
    step, and Core's work around a statement costs more than the statement. JSON comes as text."""

    def __init__(self, model: type[Base], dialect: Dialect) -> None:
        compiled = insert(model).compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)
        self._sql, self._order = compiled.string, compiled.positiontup

    def __call__(self, cursor: DBAPICursor, values: dict[str, Any]) -> None:
        if self._order is None:
            cursor.execute(self._sql, values)
        else:
            cursor.execute(self._sql, [values[name] for name in self._order])


def storable(text: str) -> str:
    r"""A text that every database takes. What ended a run is quoted from anywhere: NUL, for which
    PostgreSQL has no place, and halves of surrogate pairs, which UTF-8 has not, are written out.

    >>> storable("a\0b\ud800")
    'a\\x00b\\ud800'
    """
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def candidate_values(campaign_id: int, event: Proposed, dna: str, now: float) -> dict[str, Any]:
    return {
        "campaign_id": campaign_id,
        **event._asdict(),
        "rejections": json.dumps(event.rejections),
        "dna": dna,
        "created_at": now,
    }


def evaluation_values(campaign_id: int, entry: NewEvaluation, now: float) -> dict[str, Any]:
    event, budget, outcome = entry.event, entry.budget, entry.outcome
    return {
        "campaign_id": campaign_id,
        "sequence": event.sequence,
        "candidate_id": event.id,
        "kind": event.kind,
        "seed": event.seed,
        "unit": budget.unit,
        "amount": budget.amount,
        "hurdles": json.dumps([[hurdle.at, hurdle.threshold] for hurdle in budget.hurdles]),
        "hurdles_passed": event.hurdles_passed,
        "outcome": event.status,
        "reason": storable(outcome.reason),
        "val_loss": event.val_loss,
        "val_bpb": event.val_bpb,
        "test_loss": event.test_loss,
        "test_bpb": event.test_bpb,
        "params": outcome.params,
        "active_params": outcome.active_params,
        "flops_per_token": outcome.flops_per_token,
        "step_time_s": finite(outcome.step_time_s),
        "steps": outcome.steps,
        "tokens": outcome.tokens,
        "train_seconds": finite(outcome.train_seconds) or 0.0,
        "setup_seconds": finite(outcome.setup_seconds) or 0.0,
        "curve": json.dumps(
            [
                [point.steps, point.tokens, finite(point.train_seconds), finite(point.val_loss)]
                for point in outcome.curve
            ]
        ),
        "metrics": json.dumps({name: finite(value) for name, value in outcome.metrics.items()}),
        "experts": json.dumps(outcome.experts) if outcome.experts else None,
        "training": json.dumps([[at, finite(loss)] for at, loss in outcome.training]),
        "device": storable(outcome.device)[:200] if outcome.device else None,
        "worker": storable(entry.worker)[:200],
        "finished_at": now,
    }
