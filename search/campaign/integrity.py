"""Whether a database holds what campaigns record: everything that does not fit, a line each.

Nothing is changed, the schema included. What the database itself can tell comes first; then each
campaign on its own: its config, its programs, and its log.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlalchemy import Connection, and_, func, select

from primitives.errors import ProgramError
from primitives.language.text import parse
from search.campaign.history import State, fold
from search.campaign.progress import phase
from search.config.plugins import stored_config
from search.config.programfile import checked
from search.config.schema import SearchSpec
from search.errors import PrimevoError, UsageError
from search.storage import schema
from search.storage.address import StoreError
from search.storage.database import clear_errors, connecting
from search.storage.events import Ended
from search.storage.models import Base, Candidate, Evaluation, table_of
from search.storage.store import CampaignRow, Store
from workers.spec.outcome import STATUSES
from workers.spec.task import Task

_MOST = 20
"""Lines of one kind; more of them say no more."""


@dataclass(slots=True)
class Verdict:
    """What was looked at, and what was found wrong, a line each."""

    campaigns: int = 0
    candidates: int = 0
    evaluations: int = 0
    findings: list[str] = field(default_factory=list)


def check(url: str) -> Verdict:
    """Looks through the database at a URL. Raises a PrimevoError where it is not there or belongs
    to another program or a newer version."""
    verdict = Verdict()
    with connecting(url) as engine:
        with clear_errors(engine), engine.connect() as connection:
            older = _older(connection)
        try:
            with clear_errors(engine), engine.connect() as connection:
                verdict.findings += [*_damage(connection), *older]
                if older:  # the rest would stumble over it again and again
                    return verdict
                verdict.findings += [*_differences(connection), *_orphans(connection)]
            with Store.open(url, create=False) as store, store.understanding():
                for campaign in store.campaigns():
                    verdict.campaigns += 1
                    verdict.findings += _of_campaign(store, campaign, verdict)
        except StoreError as error:
            verdict.findings.append(str(error))
    return verdict


def _damage(connection: Connection) -> list[str]:
    """What SQLite finds wrong in its own file. A PostgreSQL server watches over its pages."""
    if connection.dialect.name != "sqlite":
        return []
    lines = connection.exec_driver_sql(f"PRAGMA integrity_check({_MOST})").scalars().all()
    return [f"file: {' '.join(str(line).split())}" for line in lines if line != "ok"]


def _older(connection: Connection) -> list[str]:
    found = schema.checked_revision(connection)
    if found == schema.HEAD:
        return []
    return [
        f"schema: revision {found or 'none'}, and the newest is {schema.HEAD}; bring it there by: "
        "primevo db upgrade"
    ]


def _differences(connection: Connection) -> Iterator[str]:
    """Tables, columns and indices that are not what the revision says."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    context = MigrationContext.configure(connection, opts={"compare_type": True})
    for difference in compare_metadata(context, Base.metadata)[:_MOST]:
        yield f"schema: {' '.join(str(part) for part in difference)}"[:200]


def _orphans(connection: Connection) -> Iterator[str]:
    """Rows that refer to what is not there, which SQLite allows to whoever does not ask it."""
    for model in (Candidate, Evaluation):
        table = table_of(model)
        for key in table.foreign_key_constraints:
            there = key.referred_table.alias()
            pairs = [(element.parent, there.c[element.column.name]) for element in key.elements]
            alone = (
                select(*table.primary_key.columns)
                .select_from(table.outerjoin(there, and_(*(own == other for own, other in pairs))))
                .where(pairs[-1][1].is_(None), *(own.is_not(None) for own, _ in pairs))
                .limit(_MOST)
            )
            columns = ", ".join(own.name for own, _ in pairs)
            for campaign, number in connection.execute(alone):
                yield (
                    f"{table.name}: row {number} of campaign {campaign} refers by {columns} to "
                    f"what is not in {key.referred_table.name}"
                )


def _of_campaign(store: Store, campaign: CampaignRow, verdict: Verdict) -> Iterator[str]:
    title = f"campaign '{campaign.name}'"
    try:
        config = stored_config(campaign.config, campaign.name)
    except PrimevoError as error:  # without its plug-ins its programs cannot be read either
        yield str(error)
        return
    yield from (f"{title}: {line}" for line in _programs(store, campaign, config.task, verdict))
    spec = config.search
    try:
        ended = [event for event in store.events(campaign.id) if isinstance(event, Ended)]
        state = fold(spec, store.events(campaign.id, spec.goals))
    except (PrimevoError, LookupError, ValueError, TypeError) as error:
        yield f"{title}: its log cannot be replayed ({type(error).__name__}: {error})"
        return
    verdict.evaluations += len(ended)
    lines = [*_numbers(store, campaign), *_endings(ended, spec, state), *_end(campaign, state)]
    yield from (f"{title}: {line}" for line in lines)


def _programs(store: Store, campaign: CampaignRow, task: Task, verdict: Verdict) -> Iterator[str]:
    """Each program is read and type-checked, and its canonical graph has the hash that is recorded
    with it."""
    table = table_of(Candidate)
    rows = select(
        table.c.id, table.c.parent_id, table.c.duplicate_of, table.c.hash, table.c.dna
    ).where(table.c.campaign_id == campaign.id).order_by(table.c.id)  # fmt: skip
    last = 0
    with store.reading() as connection:
        for id, parent, twin, hash, dna in connection.execution_options(yield_per=500).execute(
            rows
        ):
            verdict.candidates += 1
            if id != last + 1:
                yield f"candidate {id} comes after {last}"
            last = id
            for name, other in (("parent", parent), ("original", twin)):
                if other is not None and not 1 <= other < id:
                    yield f"candidate {id}: its {name} {other} is not an earlier one"
            if problem := _program(dna, hash, task):
                yield f"candidate {id}: {problem}"


def _program(text: str, hash: str, task: Task) -> str:
    try:
        graph = checked(parse(text), "it", task)
    except (ProgramError, UsageError) as error:
        return f"its program cannot be read ({' '.join(str(error).split())[:120]})"
    if graph.hash != hash:
        return f"its program has the hash {graph.hash[:8]}, and {str(hash)[:8]} is recorded"
    return ""


def _numbers(store: Store, campaign: CampaignRow) -> Iterator[str]:
    """Endings count from 1 without a gap, and each candidate has one of the search at most."""
    table = table_of(Evaluation)
    own = table.c.campaign_id == campaign.id
    counts = select(func.count(), func.min(table.c.sequence), func.max(table.c.sequence)).where(own)
    twice = (
        select(table.c.candidate_id)
        .where(own, table.c.kind == "search")
        .group_by(table.c.candidate_id)
        .having(func.count() > 1)
        .limit(_MOST)
    )
    with store.reading() as connection:
        count, first, last = connection.execute(counts).one()
        if count and (first, last) != (1, count):
            yield f"its {count} endings are numbered {first} to {last}"
        for id in connection.execute(twice).scalars():
            yield f"candidate {id} has more than one ending of the search"


def _endings(ended: list[Ended], spec: SearchSpec, state: State) -> Iterator[str]:
    for end in ended:
        hurdles = len(spec.final_points) if end.kind == "final" else spec.budget.hurdles
        where = f"ending {end.sequence} (candidate {end.id})"
        if end.status not in STATUSES:
            yield f"{where}: '{end.status}' is no outcome"
        elif end.status == "completed" and end.val_loss is None:
            yield f"{where}: completed, and without a validation loss"
        elif end.kind not in ("search", "final"):
            yield f"{where}: '{end.kind}' is no kind of run"
        elif not 0 <= end.hurdles_passed <= hurdles:
            yield f"{where}: passed {end.hurdles_passed} of {hurdles} hurdles"
        elif state.searched and end.kind == "final" and end.id not in state.finalists:
            yield f"{where}: a final run of a candidate that is no finalist"


def _end(campaign: CampaignRow, state: State) -> Iterator[str]:
    if state.candidates > state.spec.candidates:
        yield f"{state.candidates} candidates, and its config says {state.spec.candidates}"
    if campaign.finished_at is not None and phase(state) != "done":
        yield f"it says that it is finished, and its log ends in phase {phase(state)}"
