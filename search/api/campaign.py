"""A campaign from Python: run it, or evaluate its candidates yourself; read what it found."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Self

from primitives.language.text import parse
from search.api.candidate import COLUMNS, Asked, Candidate
from search.api.curve import Curves
from search.api.opening import ConfigLike, Database, database_url, load_config
from search.api.program import Program
from search.api.status import Status
from search.api.table import Table, frame
from search.campaign import queries
from search.campaign.asking import Asking
from search.campaign.length import with_candidates
from search.campaign.progress import Progress
from search.campaign.weights import refuse_others
from search.config.memory import limited, with_memory_limit
from search.config.plugins import stored_config, versions
from search.config.schema import CampaignConfig, campaign_name
from search.errors import NotFoundError, PrimevoError, UsageError
from search.storage.events import Heartbeat
from search.storage.store import CampaignRow, Store
from workers.spec.outcome import Job, Outcome

if TYPE_CHECKING:
    from pandas import DataFrame


Show = Callable[[Progress, Heartbeat], None]


class Campaign:
    """One campaign in a database.

    Args:
        config: A YAML file's path, plain data with the same keys, or a checked config.
        database: SQLAlchemy URL, or the path of a SQLite file. Default: PRIMEVO_STORAGE, else the
            config's `storage`.
        name: Default: the config's, or its file's.

    A campaign of that name which is there already is gone on with, if its config is the same one;
    otherwise a UsageError says so. The database is made when the first thing is recorded. Use it
    from one thread, and `close` it, or use it as a context manager, to let another process have it.
    """

    def __init__(
        self, config: ConfigLike, database: Database | None = None, name: str | None = None
    ) -> None:
        self.config = load_config(config, database)
        self.name = name or self.config.name or _file_name(config)
        self.database = database_url(database, self.config.storage)
        self._asking: Asking | None = None
        self._opened: Store | None = None
        if (row := self._row()) is not None:
            _check_same(self.config, row)

    def run(self, progress: bool | Show = True, hours: float | None = None) -> Self:
        """Runs a new campaign to its end on this machine's workers, or those that the config names.

        `progress` shows where it stands on stderr, or is a function that is given snapshots, at
        most ten a second. After `hours` the search ends with the candidates that it has, and the
        final phase follows. Ctrl-C (a notebook's stop button) lets the running candidates end;
        `resume` goes on. Raises a UsageError where the campaign has begun already.
        """
        if (row := self._row()) is not None and self._recorded(row):
            raise UsageError(
                f"campaign '{self.name}' has begun; go on with it by: resume(), or choose another "
                "name"
            )
        return self.resume(progress, hours)

    def resume(self, progress: bool | Show = True, hours: float | None = None) -> Self:
        """Goes on from what is recorded; as `run`, and does nothing where it is finished."""
        self._release()
        row = self._row()
        if row is not None and row.finished_at is not None:
            return self
        from search.campaign.controller import Controller
        from search.cli import running

        if row is None:
            self.config, warnings = with_memory_limit(self.config)
            for warning in warnings:
                print(f"warning: {warning}", file=sys.stderr)
        with running.started(self.config) as pool:
            row = row or self._created()
            if progress is True:
                running.run(self._store, row, pool, hours)
            else:
                show = progress if callable(progress) else None
                controller = Controller(self._store, row, pool, show, hours=hours)
                with running.interruptions(controller.drain):
                    controller.run()
        return self

    def ask(self, count: int = 1) -> list[Asked]:
        """Up to `count` runs for the caller to do, recorded before they are given out.

        None are given out while the next ones depend on outcomes that were not told yet, and at the
        end of the campaign (`status().phase` is then done). What was asked for and never told is
        given out again after the campaign was closed, or its process died.
        """
        if count < 1:
            raise UsageError(f"count is {count}; ask for 1 or more")
        if self._asking is None:
            row = self._created()
            if row.finished_at is not None:
                return []
            self._asking = Asking(self._store, row).__enter__()
        jobs = self._asking.ask(count)
        return [self._asked(job) for job in jobs]

    def tell(self, asked: Asked, outcome: Outcome | float) -> None:
        """Records how a run ended: an `Outcome`, or just the validation loss in nats per token,
        lower is better. A loss that is not finite is recorded as diverged. Of a final run, a plain
        number counts as the score on the test text, too. It is recorded when this returns."""
        if self._asking is None:
            raise UsageError(f"candidate {asked.id} was not asked for here; ask first")
        ended = outcome if isinstance(outcome, Outcome) else _outcome(asked, float(outcome))
        try:
            self._asking.tell((asked.id, asked.seed), ended)
        except BaseException as error:
            if not isinstance(error, UsageError):
                self._release(error)
            raise
        if self._asking.progress().phase == "done":
            self._release()

    def status(self) -> Status:
        """Where the campaign stands, and what it has found."""
        from search.report.findings import findings

        self._there()
        summary = queries.summary(self._store, self.name)
        return Status(summary, findings(summary))

    def top(self, n: int = 10, by: str = "fitness") -> Table:
        """The best distinct candidates by a field, the best first."""
        self._there()
        return Table(queries.top(self._store, self.name, n, by), COLUMNS)

    @property
    def best(self) -> Candidate | None:
        """The candidate that the campaign offers: the finalist with the lowest mean validation
        loss, before the final phase the best of the search; the seed program where none is below
        it. None while nothing has a score."""
        status = self.status()
        if status.findings.chosen is not None:
            return self.candidate(status.findings.chosen)
        scored = status.progress.best
        return None if scored is None else self.candidate(scored.id)

    def candidate(self, id: int) -> Candidate:
        """A candidate by number; a NotFoundError where there is none."""
        row = self._there()
        record = queries.candidate(self._store, self.name, id)
        program = Program(
            f"{self.name}-{id}", queries.stored_program(self._store, row, id)
        )  # fmt: skip
        return Candidate(id, program, record)

    def lineage(self, id: int) -> Table:
        """A candidate's ancestry, from the seed program down to itself."""
        self._there()
        return Table(queries.lineage(self._store, self.name, id), COLUMNS)

    def to_pandas(self) -> DataFrame:
        """Every candidate with its record and its program's text; needs the extra `pandas`."""
        self._there()
        texts = queries.programs(self._store, self.name)
        return frame(
            {**record, "program": texts[int(record["id"] or 0)]}
            for record in queries.records(self._store, self.name)
        )

    def curve(self, *ids: int) -> Curves:
        """Validation losses along training of the candidates, of the best one where none is named,
        beside the first seed program's; final runs, too."""
        from search.report.queries import curves

        self._there()
        best = self.best
        wanted = ids or ((best.id,) if best else ())
        for id in wanted:
            queries.candidate(self._store, self.name, id)
        every = list(dict.fromkeys([1, *wanted]))
        names = {id: "seed program" if id == 1 else f"candidate {id}" for id in every}
        return Curves(curves(self._store, self.name, every, ("search", "final")), names)

    def report(self, path: str | Path) -> Path:
        """Writes the campaign's page, one HTML file that works offline, and returns its path."""
        from search.report.page import render

        self._there()
        try:
            Path(path).write_text(render(self._store, self.name), encoding="utf-8")
        except OSError as error:
            raise PrimevoError(f"{path}: cannot be written ({error.strerror})") from None
        return Path(path)

    def export(self, to: str | Path, id: int | None = None) -> list[Path]:
        """Writes a candidate, the best one by default, as a Keras layer with its weights into a new
        or empty folder; returns the files. It is trained once more unless its weights were kept."""
        from search.api.programs import write_export
        from search.campaign.origin import origin_of
        from search.report.told import told

        chosen = self.best if id is None else self.candidate(id)
        if chosen is None:
            raise UsageError(f"campaign '{self.name}' has no scored candidate to export yet")
        record = dict(chosen.record)
        about = told(self._store, self.name, chosen.id)
        origin = origin_of(self.config, chosen.program.name, self.name, record, about)
        return write_export(chosen.program, to, origin)

    def close(self) -> None:
        """Lets go of the campaign and the database. What was recorded stays; using the campaign
        again opens it again."""
        self._release()
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._row() is None:
            return f"<Campaign {self.name}, not begun>"
        return repr(self.status())

    def _repr_html_(self) -> str:
        if self._row() is None:
            return f"<p>campaign {escape(self.name)}, not begun</p>"
        return self.status()._repr_html_() + self.top(5)._repr_html_()

    @property
    def _store(self) -> Store:
        if self._opened is None:
            self._opened = Store.open(self.database)
        return self._opened

    def _row(self) -> CampaignRow | None:
        """The campaign as recorded; None where it, or its database, is not there yet."""
        try:
            if self._opened is None:
                self._opened = Store.open(self.database, create=False)
            return self._opened.campaign(self.name)
        except NotFoundError:
            return None

    def _there(self) -> CampaignRow:
        row = self._row()
        if row is None:
            raise NotFoundError(f"campaign '{self.name}' has not begun; call run(), or ask()")
        return row

    def _created(self) -> CampaignRow:
        row = self._row()
        if row is None:
            config = self.config
            campaign_name(self.name, "give another one with name=")
            refuse_others(config.weights_folder(self.name))
            row = self._store.create_campaign(
                self.name, config.model_dump_json(), config.seed, versions(config.plugins)
            )
        return row

    def _recorded(self, row: CampaignRow) -> bool:
        return next(self._store.events(row.id), None) is not None

    def _asked(self, job: Job) -> Asked:
        program = Program(f"{self.name}-{job.id}", parse(job.dna, f"candidate {job.id}"))
        return Asked(job.id, program, job.seed, job.budget, job.test)

    def _release(self, error: BaseException | None = None) -> None:
        """Lets another process have the campaign; the error is why, if there is one."""
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.__exit__(type(error) if error else None, error, None)


def open_campaign(name: str, database: Database | None = None) -> Campaign:
    """A campaign that is there, with the config that it was launched with; a NotFoundError with the
    nearest name where there is none."""
    url = database_url(database)
    with Store.open(url, create=False) as store:
        config = stored_config(store.campaign(name).config, name)
    return Campaign(config, url, name)


def _file_name(config: ConfigLike) -> str:
    """The name after a config's file."""
    if not isinstance(config, str | Path):
        raise UsageError("a campaign whose config is no file needs a name: Campaign(config, name=)")
    return campaign_name(Path(config).stem, "give one with name=")


def _check_same(config: CampaignConfig, row: CampaignRow) -> None:
    """The configs must agree in what decides a campaign; workers and folders may differ, and so may
    the number of candidates, at which a campaign may have ended early. A limit of memory that is
    not given is the one that the campaign was launched with."""
    recorded = stored_config(row.config, row.name)
    recorded = with_candidates(recorded, config.search.candidates)
    if config.search.limits.memory_mb is None:
        recorded = limited(recorded, None)
    decides = ("seed", "plugins", "task", "search")
    differ = [key for key in decides if getattr(recorded, key) != getattr(config, key)]
    if differ:
        raise UsageError(
            f"campaign '{row.name}' is in the database with another config (it differs in "
            f"{', '.join(differ)}); choose another name, or open_campaign('{row.name}')"
        )


def _outcome(asked: Asked, loss: float) -> Outcome:
    """What a plain number says: a run in full."""
    if not math.isfinite(loss):
        return Outcome("diverged", f"the evaluator gave {loss}")
    return Outcome(
        "completed",
        val_loss=loss,
        test_loss=loss if asked.final else None,
        hurdles_passed=len(asked.budget.hurdles),
    )
