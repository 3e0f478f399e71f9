"""Studies from Python: programs compared, a winner explained, a winner made shorter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.api.campaign import Campaign
from search.api.candidate import Candidate
from search.api.curve import bundle
from search.api.opening import ConfigLike, Database, database_url, load_config
from search.api.program import Program
from search.api.programs import in_config, say
from search.api.table import Table
from search.config.schema import CampaignConfig
from search.errors import UsageError
from search.storage.store import Store
from search.study import comparison, explanation, simplification
from search.study.ancestors import ancestors
from search.study.setting import Setting, scaled, setting
from search.study.study import Study, Subject
from search.study.subjects import as_subjects, candidate_of, candidate_program

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Comparable = Program | Candidate | str | Path

_COMPARED = (
    "program", "mean", "mean_low", "mean_high", "difference", "difference_low", "difference_high",
    "verdict", "speedup_flops", "speedup_seconds", "step_time_s", "runs",
)  # fmt: skip
_EXPLAINED = (
    "id", "mutation", "inserted", "inserted_gain", "removed", "removed_gain", "change",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparison:
    """Programs against the first of them. `table` has a row for each, with the keys of
    `primevo compare -o json`."""

    _found: comparison.Compared

    @property
    def table(self) -> Table:
        return Table(comparison.records(self._found), _COMPARED)

    def figure(self) -> Figure:
        """Losses along training, and scores with intervals, by Plotly."""
        from search.study.charts import figure

        return figure(self._found)

    def __repr__(self) -> str:
        return repr(self.table)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return {**bundle(self.figure(), repr(self)), "text/html": self.table._repr_html_()}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What each change of a lineage does alone, in a table with the keys of
    `primevo explain -o json`. A gain is positive where the change helps."""

    _found: explanation.Explained

    @property
    def table(self) -> Table:
        return Table(explanation.records(self._found), _EXPLAINED)

    def __repr__(self) -> str:
        return repr(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


@dataclass(frozen=True, slots=True)
class Simplification:
    """A shorter `program`; `finding` says how it scores against the whole one under fresh seeds,
    and `deletions` what was tried."""

    program: Program
    finding: str
    deletions: Table

    def __repr__(self) -> str:
        return f"{self.finding}\n{self.program!r}"

    def _repr_html_(self) -> str:
        return f"<p>{self.finding}</p>{self.program._repr_html_()}"


def compare(
    *programs: Comparable,
    config: ConfigLike,
    seeds: int = 3,
    scale: Mapping[str, int] | None = None,
    points: int = 10,
    database: Database | None = None,
    progress: bool = True,
) -> Comparison:
    """Trains programs `seeds` times each on the config's task and final budget, and compares them
    with the first, paired by seed: at equal budget, and by how much compute each needs to reach the
    first one's final loss.

    A program is a Program, a Candidate, or what `load_program` takes, or "CAMPAIGN/ID". `scale` has
    other sizes of the model (d_model, layers, sequence_length). A run is scored at `points` points
    on its way. Runs are kept in the database, by default the config's, and never done twice.
    """
    if len(programs) < 2:
        raise UsageError("name two programs or more; the first is the baseline")
    checked = load_config(config)
    checked = scaled(checked, scale) if scale else checked
    shared = setting(checked, seeds, points=points)
    named = [_named(each, checked) for each in programs]
    create = all(isinstance(each, Program) for each in named)
    with Store.open(database_url(database, checked.storage), create) as store:
        found = [each if isinstance(each, Program) else _stored(store, *each) for each in named]
        subjects = as_subjects(((each.name, each.dna) for each in found), shared)
        with _study("compare", shared, checked, store, progress) as study:
            return Comparison(comparison.compare(study, subjects))


def explain(
    campaign: Campaign, id: int | None = None, seeds: int | None = None, progress: bool = True
) -> Explanation:
    """Trains each change of a candidate's lineage alone in the seed program, and the candidate
    without it; the best candidate and the final phase's number of runs by default. Runs are kept in
    the campaign's database and never done twice."""
    config, number = campaign.config, _number(campaign, id)
    shared = setting(config, seeds or config.search.final.seeds)
    with Store.open(campaign.database, create=False) as store:
        lineage = ancestors(store, campaign.name, number)
        title = f"explain {campaign.name} {number}"
        with _study(title, shared, config, store, progress) as study:
            return Explanation(explanation.explain(study, lineage))


def simplify(
    campaign: Campaign,
    id: int | None = None,
    seeds: int | None = None,
    tolerance: float | None = None,
    progress: bool = True,
) -> Simplification:
    """Takes away the instructions of a candidate, by default the best one, without which its
    validation loss is the same within noise. `tolerance` (nats per token) is how much the mean may
    rise, by default the standard deviation of the candidate's own runs."""
    config, number = campaign.config, _number(campaign, id)
    count = seeds or max(2, config.search.final.seeds)
    shared = setting(config, count)
    fresh = setting(config, count, first=count).seeds
    subject = Subject.of(
        f"{campaign.name}/{number}", campaign.candidate(number).program.dna, shared
    )
    with Store.open(campaign.database, create=False) as store:
        title = f"simplify {campaign.name} {number}"
        with _study(title, shared, config, store, progress) as study:
            found = simplification.simplify(study, subject, fresh, tolerance)
    columns = ("place", "instead", "result", "difference")
    tried = Table(({name: getattr(d, name) for name in columns} for d in found.deletions), columns)
    return Simplification(
        Program(f"{subject.title}, shorter", found.program), found.sentence, tried
    )


def _named(program: Comparable, config: CampaignConfig) -> Program | tuple[str, int]:
    """The program, or the campaign and number of a candidate that is named."""
    if isinstance(program, Candidate):
        return program.program
    if isinstance(program, str) and (candidate := candidate_of(program)) is not None:
        return candidate
    return in_config(program, config)


def _stored(store: Store, name: str, id: int) -> Program:
    return Program(f"{name}/{id}", candidate_program(store, name, id))


def _number(campaign: Campaign, id: int | None) -> int:
    best = campaign.best if id is None else None
    number = best.id if best else id
    if number is None:
        raise UsageError(f"campaign '{campaign.name}' has no scored candidate yet")
    return number


@contextmanager
def _study(
    name: str, shared: Setting, config: CampaignConfig, store: Store, progress: bool
) -> Iterator[Study]:
    """A study on the config's workers; the first Ctrl-C lets running ones end."""
    from search.cli.running import interruptions, on_demand

    tell: Callable[[str], None] = say(progress)
    with on_demand(config) as workers:
        study = Study(name, shared, workers, store, tell)
        with interruptions(study.drain):
            yield study
