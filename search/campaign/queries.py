"""Reading a campaign: what the command line lists, ranks and shows. Nothing here writes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Row, Select, and_, func, select

from primitives.errors import unknown
from search.campaign.history import fold
from search.campaign.progress import FinalRow, Progress, final_table, progress
from search.config.plugins import stored_config
from search.errors import NotFoundError, UsageError
from search.storage.events import Heartbeat
from search.storage.models import Candidate, Evaluation
from search.storage.store import CampaignRow, Store

Record = dict[str, int | float | str | None]

RECORD_FIELDS = (
    "id", "parent_id", "mutation", "outcome", "reason", "fitness", "val_loss", "val_bpb",
    "val_perplexity", "params", "active_params", "flops_per_token", "step_time_s", "train_seconds",
    "setup_seconds", "steps", "tokens", "experts_used", "experts_unevenness",
    "experts_max_violation", "experts_dropped", "hash", "worker",
)  # fmt: skip

State = Literal["running", "draining", "interrupted", "finished"]

_FITNESS = Evaluation.val_loss
_COLUMNS = {
    "id": Candidate.id,
    "fitness": _FITNESS,
    "val_loss": Evaluation.val_loss,
    "val_bpb": Evaluation.val_bpb,
    "val_perplexity": Evaluation.val_loss,
    "params": Evaluation.params,
    "active_params": Evaluation.active_params,
    "flops_per_token": Evaluation.flops_per_token,
    "step_time_s": Evaluation.step_time_s,
    "train_seconds": Evaluation.train_seconds,
    "setup_seconds": Evaluation.setup_seconds,
    "steps": Evaluation.steps,
    "tokens": Evaluation.tokens,
}
SORT_FIELDS = tuple(_COLUMNS)
"""What `top` can rank by."""

_LARGEST_ID = 2**31 - 1


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
    (best first; empty until a final run has ended)."""

    line: CampaignLine
    progress: Progress
    heartbeat: Heartbeat | None
    final: tuple[FinalRow, ...]


def campaigns(store: Store) -> list[CampaignLine]:
    """Every campaign, oldest first."""
    return [_line(store, campaign) for campaign in store.campaigns()]


def summary(store: Store, name: str) -> Summary:
    """Raises NotFoundError where there is no such campaign."""
    campaign = store.campaign(name)
    spec = stored_config(campaign.config, name).search
    state = fold(spec, store.events(campaign.id))
    line = _line(store, campaign)
    return Summary(line, progress(state), campaign.heartbeat, final_table(state))


def top(store: Store, name: str, count: int = 10, by: str = "fitness") -> list[Record]:
    """The `count` distinct completed candidates with the lowest `by`, one of SORT_FIELDS (another
    name is a UsageError). Duplicates are left out: their original stands for them."""
    if by not in _COLUMNS:
        raise UsageError(f"--by: {unknown('field', by, SORT_FIELDS)}")
    campaign = store.campaign(name)
    column = _COLUMNS[by]
    statement = (
        _records(campaign.id)
        .where(
            Evaluation.campaign_id == campaign.id,
            Evaluation.kind == "search",
            Evaluation.outcome == "completed",
            Candidate.duplicate_of.is_(None),
            column.is_not(None),
        )
        .order_by(column, Candidate.id)
        .limit(count)
    )
    return _fetch(store, statement)


def candidate(store: Store, name: str, id: int) -> Record:
    """One candidate with exactly the keys of RECORD_FIELDS; `outcome` is None while it has none."""
    return _one(store, store.campaign(name), id)


def program(store: Store, name: str, id: int) -> str:
    """The candidate's program in text form."""
    campaign = store.campaign(name)
    _one(store, campaign, id)
    return store.dna(campaign.id, id)


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


def _line(store: Store, campaign: CampaignRow) -> CampaignLine:
    candidates = select(func.count()).where(Candidate.campaign_id == campaign.id)
    runs = select(func.count()).where(
        Evaluation.campaign_id == campaign.id, Evaluation.worker.is_not(None)
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
        campaign.name, _state(store, campaign), campaign.seed, campaign.created_at,
        campaign.finished_at, recorded, evaluated, fitness, bpb,
    )  # fmt: skip


def _state(store: Store, campaign: CampaignRow) -> State:
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


def _records(campaign_id: int) -> Select[*tuple[Any, ...]]:
    """Candidates with their search run, if it has ended."""
    return (
        select(
            Candidate.id, Candidate.parent_id, Candidate.mutation, Candidate.hash,
            Candidate.duplicate_of, Evaluation.outcome, Evaluation.reason, Evaluation.val_loss,
            Evaluation.val_bpb, Evaluation.params, Evaluation.active_params,
            Evaluation.flops_per_token, Evaluation.step_time_s, Evaluation.train_seconds,
            Evaluation.setup_seconds,
            Evaluation.steps, Evaluation.tokens, Evaluation.routing, Evaluation.worker,
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
    loss, original = values["val_loss"], values.pop("duplicate_of")
    routing = values.pop("routing") or {}
    for measure in ("used", "unevenness", "max_violation", "dropped"):
        values[f"experts_{measure}"] = routing.get(measure)
    values["fitness"] = loss if values["outcome"] == "completed" else None
    values["val_perplexity"] = None if loss is None else math.exp(min(loss, 700.0))
    if original is not None and not values["reason"]:
        values["reason"] = f"same program as {original}"
    return {name: values[name] for name in RECORD_FIELDS}
