"""What a campaign remembers, in a SQL database.

Ownership
    A campaign belongs to the process that is inside `holding` it: only that process may call
    `record`, `beat` and `finish` for it. Any process may read, ask a campaign to stop, or create
    another one. A Store belongs to one thread; each process opens its own.

Consistency
    `record` writes its entries in one transaction, in their order: a reader sees all of them or
    none. Recorded candidates and evaluations are never changed, but for the kind of an evaluation
    that a later stage of its run follows, and removed only together with their campaign, by
    `delete`. A candidate is there before its outcome is. `events` gives back
    what was recorded, so that a fold over it is the state of the campaign
    (search.campaign.history).

Persistence
    When `record` returns, its entries survive the death of this process, and nothing may act on an
    entry earlier: a job leaves for its worker after the candidate was recorded. On SQLite a power
    failure may take the latest transactions with it, and never leaves half of one.

Errors
    Every failure of the database is a StoreError that names it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Self

from sqlalchemy import (
    Connection,
    Engine,
    Row,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from search.errors import NotFoundError, UsageError, did_you_mean
from search.storage.address import StoreError
from search.storage.database import clear_errors, open_engine, snapshot, understanding
from search.storage.entries import (
    CopiedEvaluation,
    Entry,
    Insert,
    NewCandidate,
    NewEvaluation,
    candidate_values,
    evaluation_values,
)
from search.storage.events import Ended, Event, Heartbeat, Proposed
from search.storage.lease import held, lease
from search.storage.models import Campaign, Candidate, Evaluation, Pruning
from search.storage.statements import (
    CAMPAIGNS,
    COPY_EVALUATION,
    DNA,
    ENDINGS,
    PROPOSALS,
    REASON,
    ended,
    superseded,
    value,
)
from workers.spec.metrics import METRICS


@dataclass(frozen=True, slots=True)
class CampaignRow:
    """A campaign as recorded. `config` is the checked config as JSON; `plugins` are the plug-ins
    that it was launched with, {"name": ..., "version": ...} each; `versions` are the entries of
    `note_versions`."""

    id: int
    name: str
    config: str
    seed: int
    created_at: float
    finished_at: float | None
    stop_requested: bool
    heartbeat: Heartbeat | None
    plugins: Sequence[Mapping[str, str]] = ()
    versions: Sequence[Mapping[str, Any]] = ()


class Store:
    """One database, under the contract above. Close it, or use it as a context manager."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer: Connection | None = None
        self._held: str | None = None
        self._insert_candidate = Insert(Candidate, engine.dialect)
        self._insert_evaluation = Insert(Evaluation, engine.dialect)

    @classmethod
    def open(cls, url: str, create: bool = True) -> Self:
        """Opens a database by SQLAlchemy URL and brings it to the newest schema. Without `create` a
        missing SQLite file is a NotFoundError."""
        return cls(open_engine(url, create))

    def close(self) -> None:
        """Gives the connections back. What was recorded stays."""
        if self._writer is not None:
            self._writer.close()
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read from."""
        with (
            clear_errors(self._engine),
            understanding(self._engine),
            self._engine.connect() as connection,
        ):
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection to read one moment of the database from."""
        with (
            clear_errors(self._engine),
            understanding(self._engine),
            snapshot(self._engine) as connection,
        ):
            yield connection

    @contextmanager
    def understanding(self) -> Iterator[None]:
        """For work on rows that were read: where they hold what no campaign records, as after
        damage to the file, a StoreError tells so."""
        with understanding(self._engine):
            yield

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction, on a connection that is kept: a controller writes at every step. The rows
        of a campaign are written by `record` alone. The lease goes with that connection, so that no
        other one may take its place."""
        with clear_errors(self._engine):
            writer = self._kept()
            if self._held is not None and writer.invalidated:
                raise StoreError(
                    f"the connection to the database was lost, and with it the right to run "
                    f"campaign '{self._held}'; go on by: primevo resume {self._held}"
                )
            with writer.begin():
                yield writer

    def _kept(self) -> Connection:
        """The connection to write with."""
        if self._writer is None:
            self._writer = self._engine.connect()
        return self._writer

    def create_campaign(
        self, name: str, config: str, seed: int, plugins: Sequence[Mapping[str, str]] = ()
    ) -> CampaignRow:
        """A new campaign; a UsageError where the name is taken."""
        row = {
            "name": name, "config": config, "seed": seed, "created_at": time.time(),
            "plugins": list(plugins),
        }  # fmt: skip
        try:
            with self.writing() as connection:
                connection.execute(insert(Campaign), row)
        except StoreError as error:
            if not isinstance(error.__cause__, IntegrityError):
                raise
            raise UsageError(
                f"campaign '{name}' exists; go on with it by: primevo resume {name}, or choose "
                "another --name"
            ) from None
        return self.campaign(name)

    def campaign(self, name: str) -> CampaignRow:
        """The campaign of that name, or a NotFoundError with the nearest one."""
        with self.reading() as connection:
            row = connection.execute(CAMPAIGNS.where(Campaign.name == name)).one_or_none()
            if row is not None:
                return _campaign_row(row)
            names = list(connection.execute(select(Campaign.name)).scalars())
        known = ", ".join(names[:10]) or "none yet"
        raise NotFoundError(f"no campaign '{name}'{did_you_mean(name, names)}; there are: {known}")

    def campaigns(self) -> list[CampaignRow]:
        """Every campaign, oldest first."""
        with self.reading() as connection:
            return [_campaign_row(row) for row in connection.execute(CAMPAIGNS)]

    @contextmanager
    def holding(self, campaign: CampaignRow) -> Iterator[None]:
        """The right to record in the campaign, as the only process; a StoreError where another has
        it, or this Store holds any. An earlier request to stop is forgotten."""
        if self._held is not None:
            raise StoreError(f"this process is running campaign '{self._held}'; end that first")
        with clear_errors(self._engine), lease(self._kept(), campaign.id) as mine:
            if not mine:
                raise StoreError(_held_by_another(self.campaign(campaign.name)))
            self._held = campaign.name
            try:
                self._update(campaign.id, stop_requested=False)
                yield
            finally:
                self._held = None

    def delete(self, campaign: CampaignRow) -> None:
        """Removes the campaign and all that was recorded in it, in one transaction; a StoreError
        where a controller holds it."""
        with self.holding(campaign), self.writing() as connection:
            for model in (Pruning, Evaluation, Candidate):  # the first two refer to candidates
                connection.execute(delete(model).where(model.campaign_id == campaign.id))
            connection.execute(delete(Campaign).where(Campaign.id == campaign.id))

    def running(self, campaign_id: int) -> bool:
        """Whether a controller holds the campaign."""
        with clear_errors(self._engine):
            return held(self._engine, campaign_id)

    def request_stop(self, campaign_id: int) -> bool:
        """Asks the controller to drain; False where none is running."""
        if not self.running(campaign_id):
            return False
        self._update(campaign_id, stop_requested=True)
        return True

    def stop_requested(self, campaign_id: int) -> bool:
        """Whether the controller was asked to drain since it last took hold of the campaign."""
        statement = select(Campaign.stop_requested).where(Campaign.id == campaign_id)
        with self.reading() as connection:
            return bool(connection.execute(statement).scalar_one())

    def beat(self, campaign_id: int, heartbeat: Heartbeat) -> None:
        """Leaves what only the controller knows for other processes to show."""
        self._update(campaign_id, heartbeat=asdict(heartbeat))

    def note_versions(self, campaign_id: int, first: int, versions: Mapping[str, str]) -> None:
        """Notes what proposes the candidates from number `first` on: {"first": ..., "versions":
        ...}. Nothing is added where the last entry says the same."""
        statement = select(Campaign.versions).where(Campaign.id == campaign_id)
        with self.reading() as connection:
            noted = connection.execute(statement).scalar_one() or []
        if not noted or noted[-1].get("versions") != versions:
            entry = {"first": first, "versions": dict(versions)}
            self._update(campaign_id, versions=[*noted, entry])

    def reconfigure(self, campaign_id: int, config: str) -> None:
        """Has the campaign go on with another config, as JSON."""
        self._update(campaign_id, config=config)

    def finish(self, campaign_id: int) -> None:
        """Notes that the campaign has come to its end, and when."""
        self._update(campaign_id, finished_at=time.time())

    def _update(self, campaign_id: int, **values: object) -> None:
        with self.writing() as connection:
            connection.execute(update(Campaign).where(Campaign.id == campaign_id).values(values))

    def record(self, campaign_id: int, entries: Iterable[Entry]) -> None:
        """Writes the entries, in order, in one transaction. A StoreError where one cannot be
        written (it is recorded already, or its candidate is not): then none of them is."""
        now = time.time()
        with self.writing() as connection:
            cursor = connection.connection.cursor()
            for entry in entries:
                match entry:
                    case NewCandidate(event, dna):
                        values = candidate_values(campaign_id, event, dna, now)
                        self._insert_candidate(cursor, values)
                    case NewEvaluation():
                        if entry.paused_at is not None:
                            id = entry.event.id
                            connection.execute(superseded(campaign_id, id, entry.paused_at))
                        values = evaluation_values(campaign_id, entry, now)
                        self._insert_evaluation(cursor, values)
                    case CopiedEvaluation(event, original):
                        connection.execute(
                            COPY_EVALUATION,
                            {"campaign": campaign_id, "original": original, "copy": event.id,
                             "sequence": event.sequence, "now": now},
                        )  # fmt: skip

    def dna(self, campaign_id: int, id: int) -> str:
        """A recorded candidate's program in text form."""
        with self.reading() as connection:
            row = connection.execute(DNA, {"campaign": campaign_id, "id": id}).scalar_one()
        return str(row)

    def reason(self, campaign_id: int, sequence: int) -> str:
        """Why a recorded run ended as it did; empty where there is nothing to say."""
        parameters = {"campaign": campaign_id, "sequence": sequence}
        with self.reading() as connection:
            return str(connection.execute(REASON, parameters).scalar_one())

    def events(self, campaign_id: int, goals: Sequence[str] = ()) -> Iterator[Event]:
        """What was recorded: every proposal, then every ending, each in order. Endings carry the
        values of the metrics `goals`."""
        parameters = {"campaign": campaign_id}
        with self.reading() as connection:
            # Endings are read first, so that each one's proposal is there while another writes.
            endings = connection.execute(ENDINGS.add_columns(*map(value, goals)), parameters).all()
            for row in connection.execute(PROPOSALS, parameters):
                yield Proposed._make(row)
        rows = [METRICS[name] for name in goals]
        for ending in endings:
            yield ended(ending, rows)

    def finals(
        self, campaign_id: int, connection: Connection, goals: Sequence[str] = ()
    ) -> list[Ended]:
        """The endings of the final phase, in order, as `connection` sees them."""
        statement = ENDINGS.where(Evaluation.kind == "final").add_columns(*map(value, goals))
        rows = [METRICS[name] for name in goals]
        found = connection.execute(statement, {"campaign": campaign_id})
        return [ended(ending, rows) for ending in found]


def _campaign_row(row: Row[*tuple[Any, ...]]) -> CampaignRow:
    beat = Heartbeat(**row.heartbeat) if row.heartbeat else None
    return CampaignRow(
        row.id, row.name, row.config, row.seed, row.created_at, row.finished_at,
        row.stop_requested, beat, row.plugins or (), row.versions or (),
    )  # fmt: skip


def _held_by_another(campaign: CampaignRow) -> str:
    beat = campaign.heartbeat
    by = f" by process {beat.pid} on {beat.host}" if beat else ""
    return (
        f"campaign '{campaign.name}' is being run{by}; "
        f"wait for it, or end it by: primevo stop {campaign.name}"
    )
