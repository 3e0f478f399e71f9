"""Reading a campaign: what the command line lists, ranks and shows. Nothing here writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, Select, and_, func, select

from primitives.errors import ProgramError, unknown
from primitives.language.dna import DNA
from primitives.language.text import parse
from search.campaign import ranking
from search.campaign.endings import Failure, failures, why_stopped
from search.campaign.history import fold
from search.campaign.progress import FinalRow, Progress
from search.campaign.standing import standing
from search.errors import NotFoundError, UsageError
from search.storage.address import StoreError
from search.storage.events import Heartbeat
from search.storage.models import Base, Candidate, Evaluation
from search.storage.store import CampaignRow, Store
from workers.spec.metrics import METRICS

Record = dict[str, int | float | str | None]

State = Literal["running", "draining", "interrupted", "finished"]

_BEFORE = ("id", "parent_id", "mutation", "outcome", "reason", "fitness")
_AFTER = ("hash", "worker", "device")

_LARGEST_ID = 2**31 - 1


def record_fields() -> tuple[str, ...]:
    """The keys of a record. Its metrics are those of the search: all but the test split's."""
    metrics = (name for name, row in METRICS.items() if row.where != "test")
    return (*_BEFORE, *metrics, *_AFTER)


def sort_fields() -> tuple[str, ...]:
    """What `top` can rank by."""
    return ("id", "fitness", *(name for name, row in METRICS.items() if row.where != "test"))


@dataclass(frozen=True, slots=True)
class CampaignLine:
    """One campaign in a list. `evaluated` counts training runs, final ones too; times are seconds
    since the epoch, UTC."""

    name: str
    state: State
    seed: int
    created_at: float
    finished_at: float | None
    recorded: int
    evaluated: int
    best_fitness: float | None
    best_bpb: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """`status NAME`: the campaign, where it stands, what its controller last said, its final table
    (best first; empty until a final run has ended), why runs failed, and, of an interrupted
    campaign, why it stopped."""

    line: CampaignLine
    progress: Progress
    heartbeat: Heartbeat | None
    final: tuple[FinalRow, ...]
    objectives: tuple[str, ...] = ("val_loss",)
    failures: tuple[Failure, ...] = ()
    stopped: str | None = None


def campaigns(store: Store) -> list[CampaignLine]:
    """Every campaign, oldest first."""
    return [line(store, campaign) for campaign in store.campaigns()]


def summary(store: Store, name: str) -> Summary:
    """Raises NotFoundError where there is no such campaign."""
    from search.config.plugins import stored_config  # pydantic, which `list` does without

    campaign = store.campaign(name)
    spec = stored_config(campaign.config, name).search
    progress, final = standing(store, campaign.id, spec)
    seen = line(store, campaign)
    return Summary(
        seen, progress, campaign.heartbeat, final, spec.objectives,
        failures(store, campaign), why_stopped(campaign) if seen.state == "interrupted" else None,
    )  # fmt: skip


def top(store: Store, name: str, count: int = 10, by: str = "fitness") -> list[Record]:
    """The `count` distinct completed candidates that are best by a field of `sort_fields` (another
    name is a UsageError): the highest where a metric is better so, else the lowest. Duplicates are
    left out: their original stands for them."""
    if by not in sort_fields():
        raise UsageError(f"--by: {unknown('field', by, sort_fields())}")
    campaign = store.campaign(name)
    value = _ranked_by(by)
    higher = by in METRICS and METRICS[by].better == "higher"
    best = (  # a run with a worker is no copy of another one: narrow rows are ranked first
        select(Evaluation.candidate_id)
        .where(
            Evaluation.campaign_id == campaign.id,
            Evaluation.kind == "search",
            Evaluation.outcome == "completed",
            Evaluation.worker.is_not(None),
            value.is_not(None),
        )
        .order_by(value.desc() if higher else value, Evaluation.candidate_id)
        .limit(count)
    )
    with store.reading() as connection:
        ids = connection.execute(best).scalars().all()
    found = _fetch(store, _records(campaign.id).where(Candidate.id.in_(ids)))
    return sorted(found, key=lambda record: ids.index(int(record["id"] or 0)))


def front(store: Store, name: str, by: str | None = None) -> tuple[tuple[str, ...], list[Record]]:
    """The objectives, and the distinct candidates that no other beats in all of them, among those
    that passed the most hurdles; from the best by the first objective to the worst.

    The objectives are the campaign's; `by` names one more. A UsageError where that makes but one,
    or `by` names a metric of which no value is better than another.
    """
    from search.config.plugins import stored_config
    from search.config.schema import objective_name

    campaign = store.campaign(name)
    spec = stored_config(campaign.config, name).search
    if by is not None:
        try:
            objective_name(by)
        except ValueError as error:
            raise UsageError(f"--by: {error}") from None
    goals = tuple(dict.fromkeys((*spec.objectives, *([] if by is None else [by]))))
    if len(goals) == 1:
        raise UsageError(
            f"campaign '{name}' has one objective, {goals[0]}; name another one: "
            f"primevo top {name} --pareto --by step_time_s"
        )
    state = fold(spec, store.events(campaign.id, goals))
    ends = (state.results[id] for id in state.seen.values() if id in state.results)
    ids = [end.id for end in ranking.front((e for e in ends if e.fitness is not None), goals)]
    records = _fetch(store, _records(campaign.id).where(Candidate.id.in_(ids)))
    return goals, sorted(records, key=lambda record: ids.index(int(record["id"] or 0)))


def candidate(store: Store, name: str, id: int) -> Record:
    """One candidate with the keys of `record_fields`; `outcome` is None while it has none."""
    return _one(store, store.campaign(name), id)


def records(store: Store, name: str) -> list[Record]:
    """Every candidate as `candidate` gives it, in order of their numbers."""
    return _fetch(store, _records(store.campaign(name).id).order_by(Candidate.id))


def programs(store: Store, name: str) -> dict[int, str]:
    """Every candidate's program in text form."""
    campaign = store.campaign(name)
    statement = select(Candidate.id, Candidate.dna).where(Candidate.campaign_id == campaign.id)
    with store.reading() as connection:
        return dict(connection.execute(statement).tuples().all())


def program(store: Store, name: str, id: int) -> str:
    """The candidate's program in text form."""
    campaign = store.campaign(name)
    _one(store, campaign, id)
    return store.dna(campaign.id, id)


def stored_program(store: Store, campaign: CampaignRow, id: int) -> DNA:
    """The program of a candidate that is there; a StoreError where its text is damaged."""
    text = store.dna(campaign.id, id)
    try:
        return parse(text, f"candidate {id} of {campaign.name}")
    except ProgramError as error:
        raise StoreError(
            f"{error} (the program is stored damaged: restore a copy of the database)"
        ) from error


def lineage(store: Store, name: str, id: int) -> list[Record]:
    """The candidate's ancestry, from the seed program down to itself."""
    campaign = store.campaign(name)
    _one(store, campaign, id)
    own = Candidate.campaign_id == campaign.id
    link = select(Candidate.id, Candidate.parent_id)
    above = link.where(own, Candidate.id == id).cte("above", recursive=True)
    above = above.union_all(link.where(own, Candidate.id == above.c.parent_id))
    ancestors = _records(campaign.id).where(Candidate.id.in_(select(above.c.id)))
    return _fetch(store, ancestors.order_by(Candidate.id))


def line(store: Store, campaign: CampaignRow) -> CampaignLine:
    """The campaign as a list shows it."""
    candidates = select(func.count()).where(Candidate.campaign_id == campaign.id)
    runs = select(func.count()).where(
        Evaluation.campaign_id == campaign.id,
        Evaluation.sequence > 0,  # SQLite then reads the rows as they lie in the file
        Evaluation.worker.is_not(None),
        Evaluation.kind.in_(("search", "final")),
    )
    best = (
        select(Evaluation.val_loss, Evaluation.val_bpb)
        .where(
            Evaluation.campaign_id == campaign.id,
            Evaluation.kind == "search",
            Evaluation.outcome == "completed",
            Evaluation.val_loss.is_not(None),
        )
        .order_by(Evaluation.val_loss)
        .limit(1)
    )
    with store.reading() as connection:
        recorded = connection.execute(candidates).scalar_one()
        evaluated = connection.execute(runs).scalar_one()
        fitness, bpb = connection.execute(best).tuples().one_or_none() or (None, None)
    return CampaignLine(
        campaign.name, state(store, campaign), campaign.seed, campaign.created_at,
        campaign.finished_at, recorded, evaluated, fitness, bpb,
    )  # fmt: skip


def state(store: Store, campaign: CampaignRow) -> State:
    """Whether a controller runs the campaign, and where it stands if none does."""
    if store.running(campaign.id):
        return "draining" if campaign.stop_requested else "running"
    return "interrupted" if campaign.finished_at is None else "finished"


def _one(store: Store, campaign: CampaignRow, id: int) -> Record:
    if 1 <= id <= _LARGEST_ID:
        records = _fetch(store, _records(campaign.id).where(Candidate.id == id))
        if records:
            return records[0]
    with store.reading() as connection:
        statement = select(func.max(Candidate.id)).where(Candidate.campaign_id == campaign.id)
        last = connection.execute(statement).scalar_one()
    there = f"it has 1 to {last}" if last else "it has none yet"
    raise NotFoundError(f"campaign '{campaign.name}' has no candidate {id}; {there}")


def _ranked_by(field: str) -> ColumnElement[Any]:
    """The values that order candidates by a field: a metric's column orders as the metric does."""
    if field == "id":
        return _column(Evaluation, "candidate_id")
    column = METRICS["val_loss" if field == "fitness" else field].column
    if column is not None:
        return _column(Evaluation, column)
    kept: ColumnElement[Any] = Evaluation.metrics[field].as_float()
    return kept


def _column(model: type[Base], name: str) -> ColumnElement[Any]:
    column: ColumnElement[Any] = model.__table__.c[name]
    return column


def _records(campaign_id: int) -> Select[*tuple[Any, ...]]:
    """Candidates with their search run, if it has ended."""
    columns = {row.column: None for row in METRICS.values() if row.column and row.where != "test"}
    return (
        select(
            Candidate.id, Candidate.parent_id, Candidate.mutation, Candidate.hash,
            Candidate.duplicate_of, Evaluation.outcome, Evaluation.reason, Evaluation.metrics,
            Evaluation.worker, Evaluation.device,
            *(_column(Evaluation, column) for column in columns),
        )
        .join_from(
            Candidate,
            Evaluation,
            and_(
                Evaluation.campaign_id == Candidate.campaign_id,
                Evaluation.candidate_id == Candidate.id,
                Evaluation.kind == "search",
            ),
            isouter=True,
        )
        .where(Candidate.campaign_id == campaign_id)
    )  # fmt: skip


def _fetch(store: Store, statement: Select[*tuple[Any, ...]]) -> list[Record]:
    with store.reading() as connection:
        return [_record(row) for row in connection.execute(statement)]


def _record(row: Row[*tuple[Any, ...]]) -> Record:
    values: dict[str, Any] = dict(row._mapping)
    original, kept = values.pop("duplicate_of"), values.pop("metrics") or {}
    values["fitness"] = values["val_loss"] if values["outcome"] == "completed" else None
    if original is not None and not values["reason"]:
        values["reason"] = f"same program as {original}"
    metrics = {
        name: metric.formed(values[metric.column]) if metric.column else kept.get(name)
        for name, metric in METRICS.items()
        if metric.where != "test"
    }
    return {name: values[name] for name in _BEFORE} | metrics | {
        name: values[name] for name in _AFTER
    }  # fmt: skip
