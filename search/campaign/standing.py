"""Where a recorded campaign stands, from sums that the database makes.

It says what `progress` says of the folded state, without reading the log: a fold over 100,000
candidates takes seconds, and whoever asks for the status wants it at once. A sum over budgets that
are no whole numbers may differ from the fold's in the last digits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Integer, case, cast, func, select

from search.campaign.finals import with_tested
from search.campaign.history import Score
from search.campaign.progress import FinalRow, Phase, Progress, final_rows, held_back
from search.evolution.hurdles import spent
from search.evolution.rungs import places
from search.storage.models import Candidate, Evaluation
from search.storage.store import Store
from workers.spec.outcome import STATUSES

if TYPE_CHECKING:
    from search.config.schema import SearchSpec


class _Group(NamedTuple):
    """So many endings of the search that are alike."""

    outcome: str
    copied: bool
    of_seed: bool
    hurdles_passed: int
    size: int


def standing(
    store: Store, campaign_id: int, spec: SearchSpec
) -> tuple[Progress, tuple[FinalRow, ...]]:
    """The campaign at one moment, and its final table."""
    with store.snapshot() as connection:
        recorded = _count(connection, Candidate.campaign_id == campaign_id)
        groups = _groups(connection, campaign_id, len(spec.seeds))
        rejected = _rejected(connection, campaign_id)
        best = _best(connection, campaign_id)
        seeds = _scores(connection, campaign_id, len(spec.seeds))
        fit = _distinct(connection, campaign_id, spec.final.top)
        finals = store.finals(campaign_id, connection, spec.goals)
        rows = with_tested(final_rows(finals, spec), connection, campaign_id)
    ended = sum(group.size for group in groups)
    hurdles = _hurdles(groups, spec)
    all_ended = recorded >= spec.candidates and ended >= recorded
    searched = all_ended and not _promotable(hurdles, spec)
    planned = _finals_planned(spec, searched, fit, 1 in seeds)
    phase = _phase(spec, searched, len(seeds), len(finals) < planned)
    stopped_at, paused = held_back(_held_at(groups, spec.budget.hurdles), spec.budget, phase)
    shown = Progress(
        phase=phase,
        candidates=spec.candidates,
        recorded=recorded,
        pending=recorded - ended,
        outcomes=_outcomes(groups),
        rejected=rejected,
        duplicates=sum(group.size for group in groups if group.copied),
        unit=spec.budget.unit,
        **_budgets(groups, spec),
        stopped_at=stopped_at,
        **hurdles,
        meant=1 / spec.budget.eta,
        paused=paused,
        best=best,
        seed=seeds.get(1),
        finals_done=len(finals),
        finals_planned=planned,
    )
    return shown, rows


def _count(connection: Connection, which: ColumnElement[bool]) -> int:
    return connection.execute(select(func.count()).where(which)).scalar_one()


def _of_search(campaign_id: int) -> tuple[ColumnElement[bool], ...]:
    """The endings of the search, in the order in which they lie in the file: with `sequence` in the
    condition SQLite follows the primary key, and reads each page once."""
    return (
        Evaluation.campaign_id == campaign_id,
        Evaluation.sequence > 0,
        Evaluation.kind == "search",
    )


def _groups(connection: Connection, campaign_id: int, seeds: int) -> list[_Group]:
    keys = (
        Evaluation.outcome,
        Evaluation.worker.is_(None),
        case((Evaluation.candidate_id <= seeds, 1), else_=0),
        Evaluation.hurdles_passed,
    )
    statement = select(*keys, func.count()).where(*_of_search(campaign_id)).group_by(*keys)
    return [_Group._make(row) for row in connection.execute(statement)]


def _rejected(connection: Connection, campaign_id: int) -> dict[str, int]:
    """Refused children by reason, summed up over the candidates before which they were."""
    sqlite = connection.dialect.name == "sqlite"
    each = func.json_each if sqlite else func.json_each_text
    entries = each(Candidate.rejections).table_valued("key", "value", joins_implicitly=True)
    total = func.sum(cast(entries.c.value, Integer))
    statement = (
        select(entries.c.key, cast(total, Integer))
        .select_from(Candidate, entries)
        .where(Candidate.campaign_id == campaign_id, Candidate.id > 0)
        .group_by(entries.c.key)
    )
    return dict(connection.execute(statement).tuples().all())


def _best(connection: Connection, campaign_id: int) -> Score | None:
    """The lowest loss; of equal ones the first."""
    statement = (
        select(Evaluation.candidate_id, Evaluation.val_loss, Evaluation.val_bpb)
        .where(*_completed(campaign_id))
        .order_by(Evaluation.val_loss, Evaluation.sequence)
        .limit(1)
    )
    for id, loss, bpb in connection.execute(statement).tuples():
        if loss is not None:
            return Score(id, loss, bpb)
    return None


def _completed(campaign_id: int) -> tuple[ColumnElement[bool], ...]:
    return (
        Evaluation.campaign_id == campaign_id,
        Evaluation.kind == "search",
        Evaluation.outcome == "completed",
        Evaluation.val_loss.is_not(None),
    )


def _scores(connection: Connection, campaign_id: int, seeds: int) -> dict[int, Score | None]:
    """The seed programs that have ended, with the score of each; None for one without."""
    statement = select(
        Evaluation.candidate_id, Evaluation.outcome, Evaluation.val_loss, Evaluation.val_bpb
    ).where(
        Evaluation.campaign_id == campaign_id,
        Evaluation.kind == "search",
        Evaluation.candidate_id <= seeds,
    )
    return {
        id: Score(id, loss, bpb) if outcome == "completed" and loss is not None else None
        for id, outcome, loss, bpb in connection.execute(statement)
    }


def _distinct(connection: Connection, campaign_id: int, most: int) -> int:
    """How many distinct programs have a score, the first seed program left out; `most` at most."""
    some = (
        select(Evaluation.candidate_id)
        .where(
            *_completed(campaign_id), Evaluation.worker.is_not(None), Evaluation.candidate_id > 1
        )
        .limit(most)
    )
    return connection.execute(select(func.count()).select_from(some.subquery())).scalar_one()


def _finals_planned(spec: SearchSpec, searched: bool, fit: int, seed_ended: bool) -> int:
    """As `progress.finals_planned`: until the search has ended, as many as there may be."""
    if spec.final.top == 0:
        return 0
    if not searched:
        return (spec.final.top + 1) * spec.final.seeds
    return (1 + min(fit, spec.final.top)) * spec.final.seeds if seed_ended else 0


def _phase(spec: SearchSpec, searched: bool, seeds: int, finals_left: bool) -> Phase:
    if not searched:
        return "search" if seeds == len(spec.seeds) else "seeds"
    return "final" if finals_left else "done"


def _outcomes(groups: Sequence[_Group]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for group in groups:
        if not group.copied:
            counts[group.outcome] += group.size
    known = [status for status in STATUSES if status in counts]
    return {status: counts[status] for status in (*known, *sorted(set(counts) - set(known)))}


def _budgets(groups: Sequence[_Group], spec: SearchSpec) -> dict[str, Any]:
    """What completed runs took and saved of the budget."""
    took = saved_by_duplicates = saved_by_hurdles = 0.0
    for group in groups:
        if group.outcome != "completed":
            continue
        used = spent(spec.budget.hurdles_at, spec.budget.full, group.hurdles_passed)
        if group.copied:
            saved_by_duplicates += group.size * used
        else:
            took += group.size * used
            saved_by_hurdles += group.size * (spec.budget.full - used)
    return {
        "spent": took,
        "saved_by_duplicates": saved_by_duplicates,
        "saved_by_hurdles": saved_by_hurdles,
    }


def _held_at(groups: Sequence[_Group], count: int) -> list[int]:
    """At each hurdle the completed runs that ended there."""
    held_at = [0] * count
    for group in groups:
        if group.outcome == "completed" and not group.copied and group.hurdles_passed < count:
            held_at[group.hurdles_passed] += group.size
    return held_at


def _hurdles(groups: Sequence[_Group], spec: SearchSpec) -> dict[str, Any]:
    """At each hurdle the children that it judged, and those that went on. A run that did not
    complete was judged by the hurdles that it passed."""
    count = spec.budget.hurdles
    reached, went_on = [0] * count, [0] * count
    children = 0
    for group in (group for group in groups if not (group.copied or group.of_seed)):
        completed, passed = group.outcome == "completed", group.hurdles_passed
        children += group.size
        for place in range(min(passed + completed, count)):
            reached[place] += group.size
            went_on[place] += group.size * (place < passed)
    return {
        "children": children,
        "reached": tuple(reached),
        "went_on": tuple(went_on),
    }


def _promotable(hurdles: dict[str, Any], spec: SearchSpec) -> bool:
    """Whether a paused candidate is to go on when no child is to come any more."""
    pairs = zip(hurdles["reached"], hurdles["went_on"], strict=True)
    return spec.budget.promotes and any(
        went_on < places(reached, spec.budget.eta, open=False) for reached, went_on in pairs
    )
