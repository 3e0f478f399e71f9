"""The statements that a Store runs again and again, and what the rows of endings say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, Update, bindparam, case, insert, null, select, update

from search.storage.events import Ended, kind_of, stage
from search.storage.models import Campaign, Candidate, Evaluation
from workers.spec.metrics import METRICS, Metric

CAMPAIGNS = select(
    Campaign.id, Campaign.name, Campaign.config, Campaign.seed, Campaign.created_at,
    Campaign.finished_at, Campaign.stop_requested, Campaign.heartbeat, Campaign.plugins,
    Campaign.versions,
).order_by(Campaign.id)  # fmt: skip

PROPOSALS = (
    select(
        Candidate.id, Candidate.parent_id, Candidate.mutation, Candidate.hash,
        Candidate.duplicate_of, Candidate.rejections, Candidate.endings, Candidate.behaviour,
    )
    .where(Candidate.campaign_id == bindparam("campaign"))
    .order_by(Candidate.id)
)  # fmt: skip

ENDINGS = (
    select(
        Evaluation.sequence, Evaluation.candidate_id, Evaluation.kind, Evaluation.seed,
        Evaluation.outcome, Evaluation.val_loss, Evaluation.val_bpb, Evaluation.test_loss,
        Evaluation.test_bpb, Evaluation.hurdles_passed,
        Evaluation.step_time_s, Evaluation.curve,
    )
    .where(Evaluation.campaign_id == bindparam("campaign"))
    .order_by(Evaluation.sequence)
)  # fmt: skip

_KNOWN = len(ENDINGS.selected_columns) - 2
"""Columns of an ending before its step time and its curve."""


def value(name: str) -> ColumnElement[Any]:
    """What is stored of a metric: in its column, or in the one that holds those without."""
    column = METRICS[name].column
    if column is None:
        kept: ColumnElement[Any] = Evaluation.metrics[name].as_float()
        return kept.label(f"goal_{name}")
    found: ColumnElement[Any] = Evaluation.__table__.c[column]
    return found.label(f"goal_{name}")


DNA = select(Candidate.dna).where(
    Candidate.campaign_id == bindparam("campaign"), Candidate.id == bindparam("id")
)

REASON = select(Evaluation.reason).where(
    Evaluation.campaign_id == bindparam("campaign"), Evaluation.sequence == bindparam("sequence")
)

_COPIED = {
    # that the original is paused, say, is nothing that its copy has
    "reason": case((Evaluation.outcome == "completed", ""), else_=Evaluation.reason),
    "sequence": bindparam("sequence"),
    "candidate_id": bindparam("copy"),
    "worker": null(),
    "finished_at": bindparam("now"),
}
COPY_EVALUATION = insert(Evaluation).from_select(
    [column.name for column in Evaluation.__table__.columns],
    select(*(_COPIED.get(column.name, column) for column in Evaluation.__table__.columns)).where(
        Evaluation.campaign_id == bindparam("campaign"),
        Evaluation.candidate_id == bindparam("original"),
        Evaluation.kind == "search",
    ),
)


def superseded(campaign_id: int, id: int, hurdle: int) -> Update:
    """Makes the row of a run that was paused at a hurdle that of a stage: a later one follows."""
    return (
        update(Evaluation)
        .where(
            Evaluation.campaign_id == campaign_id,
            Evaluation.candidate_id == id,
            Evaluation.kind == "search",
        )
        .values(kind=stage(hurdle))
    )


def ended(row: Row[*tuple[Any, ...]], goals: Sequence[Metric]) -> Ended:
    *values, step_time_s, curve = row[: _KNOWN + 2]
    values[2] = kind_of(values[2])
    losses = tuple(point[-1] for point in curve)
    found = zip(goals, row[_KNOWN + 2 :], strict=True)
    known = tuple(goal.formed(value) for goal, value in found)
    return Ended._make((*values, losses, step_time_s, known))
