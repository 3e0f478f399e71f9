"""Why runs ended without a result, and why a campaign stands still. Nothing here writes."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select

from search.storage.models import Evaluation
from search.storage.store import CampaignRow, Store
from workers.spec.outcome import STATUSES, Status

SHOWN = 10
"""Different reasons that are listed: a campaign may have one for each candidate."""

_FAILURES: tuple[Status, ...] = tuple(
    status for status in STATUSES if status not in ("completed", "too_slow")
)
"""A program whose step is too slow is stopped by a rule of the search, as by a hurdle."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Runs that ended in the same way for the same reason; copies for duplicates are not counted.
    `first` is the lowest id of a candidate among them."""

    outcome: str
    reason: str
    count: int
    first: int


def failures(store: Store, campaign: CampaignRow) -> tuple[Failure, ...]:
    """The most frequent reasons why runs did not complete, at most SHOWN of them."""
    count, first = func.count(), func.min(Evaluation.candidate_id)
    statement = (
        select(Evaluation.outcome, Evaluation.reason, count, first)
        .where(
            Evaluation.campaign_id == campaign.id,
            Evaluation.kind.in_(("search", "final")),  # so that an index leads to the outcome
            Evaluation.outcome.in_(_FAILURES),
            Evaluation.worker.is_not(None),
        )
        .group_by(Evaluation.outcome, Evaluation.reason)
        .order_by(count.desc(), first)
        .limit(SHOWN)
    )
    with store.reading() as connection:
        return tuple(Failure(*row) for row in connection.execute(statement).tuples())


def why_stopped(campaign: CampaignRow) -> str:
    """What ended the last controller of an interrupted campaign, as far as is known."""
    beat = campaign.heartbeat
    if beat is None:
        return "it ended before it had begun"
    if beat.ended:
        return beat.ended
    return (
        f"process {beat.pid} on {beat.host} ended without a word: it was killed, or its machine "
        "went down, or it could not write to the database"
    )
