"""What a campaign's rows say of single candidates: their runs, relatives and history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, func, select

from search.storage.models import Candidate, Evaluation
from search.storage.store import Store

SHOWN = 12
"""Entries of a history, relatives of a candidate, and candidates in training that a page lists."""

_REASONS = 3


class Entry(NamedTuple):
    """Something that was recorded. `at` is in seconds since the epoch, `kind` is proposed, search
    or final, and `text` tells what happened."""

    at: float
    id: int
    kind: str
    text: str


class Trained(NamedTuple):
    """A training run that has ended. `copied` runs were taken over from the original of a
    duplicate."""

    kind: str
    seed: int
    outcome: str
    reason: str
    val_loss: float | None
    test_loss: float | None
    steps: int
    train_seconds: float
    setup_seconds: float
    worker: str | None
    finished_at: float

    @property
    def copied(self) -> bool:
        return self.worker is None


class Relatives(NamedTuple):
    """The first SHOWN children and copies of a candidate, and how many there are."""

    children: Sequence[int]
    all_children: int
    copies: Sequence[int]
    all_copies: int


def trained(store: Store, name: str, id: int) -> list[Trained]:
    """A candidate's runs in the order of their endings."""
    statement = (
        select(
            Evaluation.kind, Evaluation.seed, Evaluation.outcome, Evaluation.reason,
            Evaluation.val_loss, Evaluation.test_loss, Evaluation.steps, Evaluation.train_seconds,
            Evaluation.setup_seconds, Evaluation.worker, Evaluation.finished_at,
        )
        .where(Evaluation.campaign_id == store.campaign(name).id, Evaluation.candidate_id == id)
        .order_by(Evaluation.sequence)
    )  # fmt: skip
    with store.reading() as connection:
        return [Trained._make(row) for row in connection.execute(statement)]


def relatives(store: Store, name: str, id: int) -> Relatives:
    """The candidates that a candidate is the parent, or the original, of."""
    campaign = store.campaign(name).id
    children = _where(store, campaign, Candidate.parent_id == id)
    copies = _where(store, campaign, Candidate.duplicate_of == id)
    return Relatives(children[:SHOWN], len(children), copies[:SHOWN], len(copies))


def _where(store: Store, campaign: int, which: ColumnElement[bool]) -> list[int]:
    statement = select(Candidate.id).where(Candidate.campaign_id == campaign, which)
    with store.reading() as connection:
        return list(connection.execute(statement.order_by(Candidate.id)).scalars())


def waiting(store: Store, name: str) -> list[int]:
    """The first SHOWN candidates whose search run has not ended: they train, or are about to."""
    campaign = store.campaign(name).id
    ended = (
        select(Evaluation.sequence)
        .where(
            Evaluation.campaign_id == campaign,
            Evaluation.candidate_id == Candidate.id,
            Evaluation.kind == "search",
        )
        .exists()
    )
    statement = (
        select(Candidate.id)
        .where(Candidate.campaign_id == campaign, ~ended)
        .order_by(Candidate.id)
        .limit(SHOWN)
    )
    with store.reading() as connection:
        return list(connection.execute(statement).scalars())


def last(store: Store, name: str) -> int | None:
    """The highest number of a candidate; None where there is none."""
    statement = select(func.max(Candidate.id)).where(
        Candidate.campaign_id == store.campaign(name).id
    )
    with store.reading() as connection:
        return connection.execute(statement).scalar_one()


def history(store: Store, name: str, id: int | None = None) -> list[Entry]:
    """What was recorded last, the newest first: of one candidate all of it, of the campaign SHOWN
    entries."""
    campaign = store.campaign(name).id
    proposals = select(
        Candidate.created_at, Candidate.id, Candidate.parent_id, Candidate.mutation,
        Candidate.duplicate_of, Candidate.rejections,
    ).where(Candidate.campaign_id == campaign)  # fmt: skip
    endings = select(
        Evaluation.finished_at, Evaluation.candidate_id, Evaluation.kind, Evaluation.outcome,
        Evaluation.reason, Evaluation.val_loss, Evaluation.worker, Evaluation.steps,
    ).where(Evaluation.campaign_id == campaign)  # fmt: skip
    if id is None:
        proposals = proposals.order_by(Candidate.id.desc()).limit(SHOWN)
        endings = endings.order_by(Evaluation.sequence.desc()).limit(SHOWN)
    else:
        proposals = proposals.where(Candidate.id == id)
        endings = endings.where(Evaluation.candidate_id == id)
    with store.reading() as connection:
        entries = [_proposed(*row) for row in connection.execute(proposals).tuples()]
        entries += [_ended(*row) for row in connection.execute(endings).tuples()]
    entries.sort(key=lambda entry: (entry.at, entry.id, entry.kind != "proposed"), reverse=True)
    return entries if id is not None else entries[:SHOWN]


def _proposed(
    at: float,
    id: int,
    parent: int | None,
    mutation: str,
    original: int | None,
    rejections: Mapping[str, int],
) -> Entry:
    text = "a seed program" if parent is None else f"{mutation} of {parent}"
    if original is not None:
        text += f"; the same program as {original}, whose outcome it takes over"
    if rejections:
        often = sorted(rejections.items(), key=lambda item: -item[1])
        reasons = ", ".join(f"{reason} ({count})" for reason, count in often[:_REASONS])
        more = ", ..." if len(often) > _REASONS else ""
        text += f"; refused before it: {reasons}{more}"
    return Entry(at, id, "proposed", text)


def _ended(
    at: float,
    id: int,
    kind: str,
    outcome: str,
    reason: str,
    val_loss: float | None,
    worker: str | None,
    steps: int,
) -> Entry:
    text = outcome.replace("_", " ")
    if worker is None:
        text += ", taken over"
    if val_loss is not None:
        text += f", validation loss {val_loss:.4f} after {steps:,} steps"
    return Entry(at, id, kind, f"{text}: {reason}" if reason else text)
