"""Whether a page would be another one now: a few figures that change when what it shows does."""

from __future__ import annotations

from sqlalchemy import func, select

from search.campaign import queries
from search.storage.models import Candidate, Evaluation
from search.storage.store import CampaignRow, Store

Mark = tuple[object, ...]


def of_all(store: Store) -> Mark:
    """Of the list of campaigns."""
    return tuple(of_campaign(store, row.name) for row in store.campaigns())


def of_campaign(store: Store, name: str) -> Mark:
    """A NotFoundError where there is no such campaign."""
    row = store.campaign(name)
    beat = row.heartbeat
    said = (beat.running, beat.capacity, beat.waiting, beat.ended) if beat else ()
    proposals = select(func.max(Candidate.id)).where(Candidate.campaign_id == row.id)
    endings = select(func.max(Evaluation.sequence)).where(Evaluation.campaign_id == row.id)
    return row.id, name, *_counts(store, proposals, endings), queries.state(store, row), *said


def of_candidate(store: Store, name: str, id: int) -> Mark:
    """The same of one candidate's page."""
    row: CampaignRow = store.campaign(name)
    runs = select(func.count()).where(
        Evaluation.campaign_id == row.id, Evaluation.candidate_id == id
    )
    related = select(func.count()).where(
        Candidate.campaign_id == row.id,
        (Candidate.parent_id == id) | (Candidate.duplicate_of == id),
    )
    later = select(func.count()).where(Candidate.campaign_id == row.id, Candidate.id == id + 1)
    return row.id, name, id, *_counts(store, runs, related, later)


def _counts(store: Store, *statements: object) -> list[object]:
    with store.reading() as connection:
        return [connection.execute(each).scalar_one() for each in statements]  # type: ignore[call-overload]
