"""The rows that a report is made of, read straight from the database."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import and_, select

from search.storage.models import Candidate, Evaluation
from search.storage.store import Store


class Point(NamedTuple):
    """One scored point of a training run. The loss is the validation loss in nats per token, None
    where it was not finite; seconds are those of training."""

    steps: int
    tokens: int
    train_seconds: float | None
    val_loss: float | None


class Curve(NamedTuple):
    """The scored points of one run, in order. `kind` is search or final. `training` holds (steps,
    mean training loss of the steps since the point before)."""

    id: int
    kind: str
    seed: int
    points: tuple[Point, ...]
    training: tuple[tuple[int, float | None], ...] = ()


def training_points(curve: Curve) -> list[Point]:
    """The losses of training as points whose `val_loss` is a training loss; tokens and seconds by
    the pace of the whole run."""
    last = curve.points[-1]
    seconds = (last.train_seconds or 0.0) / last.steps
    return [
        Point(at, at * last.tokens // last.steps, at * seconds, loss) for at, loss in curve.training
    ]


class Run(NamedTuple):
    """A candidate with the ending of its search run. A duplicate (`duplicate_of` is set) has the
    ending of its original.

    `sequence` counts the campaign's endings from 1. `hurdles` are the [at, threshold] pairs that it
    was given, the threshold in validation loss. `losses` holds the validation loss at each scored
    point. `rejections` counts, by reason, the children that were refused before this one."""

    id: int
    parent_id: int | None
    mutation: str
    duplicate_of: int | None
    rejections: Mapping[str, int]
    sequence: int
    outcome: str
    hurdles_passed: int
    hurdles: tuple[tuple[float, float | None], ...]
    val_loss: float | None
    val_bpb: float | None
    params: int | None
    flops_per_token: int | None
    step_time_s: float | None
    losses: tuple[float | None, ...]

    @property
    def fitness(self) -> float | None:
        return self.val_loss if self.outcome == "completed" else None


def runs(store: Store, name: str, ids: Collection[int] | None = None) -> list[Run]:
    """Every candidate whose search run has ended, or those of `ids`, in the order of the
    endings."""
    statement = (
        select(
            Candidate.id, Candidate.parent_id, Candidate.mutation, Candidate.duplicate_of,
            Candidate.rejections, Evaluation.sequence, Evaluation.outcome,
            Evaluation.hurdles_passed, Evaluation.hurdles, Evaluation.val_loss,
            Evaluation.val_bpb, Evaluation.params, Evaluation.flops_per_token,
            Evaluation.step_time_s, Evaluation.curve,
        )
        .join_from(
            Candidate,
            Evaluation,
            and_(
                Evaluation.campaign_id == Candidate.campaign_id,
                Evaluation.candidate_id == Candidate.id,
                Evaluation.kind == "search",
            ),
        )
        .where(Candidate.campaign_id == store.campaign(name).id)
        .order_by(Evaluation.sequence)
    )  # fmt: skip
    if ids is not None:
        statement = statement.where(Candidate.id.in_(ids))
    with store.reading() as connection:
        return [_run(row) for row in connection.execute(statement)]


def curves(
    store: Store, name: str, ids: Collection[int], kinds: Collection[str] = ("search",)
) -> list[Curve]:
    """The curves of the candidates' runs, by candidate and in order of recording; runs without a
    scored point are left out."""
    statement = (
        select(
            Evaluation.candidate_id,
            Evaluation.kind,
            Evaluation.seed,
            Evaluation.curve,
            Evaluation.training,
        )
        .where(
            Evaluation.campaign_id == store.campaign(name).id,
            Evaluation.candidate_id.in_(ids),
            Evaluation.kind.in_(kinds),
        )
        .order_by(Evaluation.candidate_id, Evaluation.sequence)
    )
    with store.reading() as connection:
        rows = connection.execute(statement).all()
    return [
        Curve(
            id,
            kind,
            seed,
            tuple(map(Point._make, curve)),
            _losses(training),
        )
        for id, kind, seed, curve, training in rows
        if curve
    ]


def _losses(
    stored: Collection[Sequence[float | None]] | None,
) -> tuple[tuple[int, float | None], ...]:
    """Losses of training; rows of earlier versions have none."""
    return tuple((int(at or 0), loss) for at, loss in stored or ())


def programs(store: Store, name: str, ids: Collection[int]) -> dict[int, str]:
    """The candidates' programs in text form."""
    statement = select(Candidate.id, Candidate.dna).where(
        Candidate.campaign_id == store.campaign(name).id, Candidate.id.in_(ids)
    )
    with store.reading() as connection:
        return dict(connection.execute(statement).tuples().all())


def _run(row: Sequence[Any]) -> Run:
    losses = tuple(point[-1] for point in row[-1])
    run = Run._make((*row[:-1], losses))
    return run._replace(hurdles=tuple((at, bar) for at, bar in run.hurdles))
