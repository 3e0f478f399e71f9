"""What every part of a report draws from, read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from search.campaign import queries as campaign_queries
from search.campaign.experts import Experts, experts
from search.campaign.queries import Record, Summary
from search.config.plugins import stored_config
from search.config.schema import BudgetSpec
from search.report import queries
from search.report.data import Kind, MutationRow, Quality, kind, mutation_rows, quality
from search.report.findings import Findings, findings
from search.report.queries import Curve, Run
from search.storage.store import Store

ROUTED = 200
"""How many of the best candidates are looked at for routed calls."""

_CURVES = 6


@dataclass(frozen=True)
class View:
    """A campaign's rows and what was found. `runs` are in the order in which they ended, `top` are
    the best distinct candidates. `curves` are those of the seed program, the chosen candidate and
    some of the best; of the first two, the final runs' as well. `experts` are those of the chosen
    candidate, or else of the first finalist that has a routed call."""

    summary: Summary
    budget: BudgetSpec
    runs: Sequence[Run]
    quality: Quality
    found: Findings
    top: Sequence[Record]
    curves: Sequence[Curve]
    experts: Experts | None = None

    @property
    def name(self) -> str:
        return self.summary.line.name

    @property
    def hurdles(self) -> int:
        return self.budget.hurdles

    def kind_of(self, run: Run) -> Kind:
        """What became of a candidate, as far as the campaign has come."""
        return kind(run, self.budget, self.summary.progress.phase)

    @cached_property
    def by_id(self) -> dict[int, Run]:
        return {run.id: run for run in self.runs}

    @cached_property
    def mutations(self) -> list[MutationRow]:
        return mutation_rows(self.runs)

    @property
    def routed(self) -> list[Record]:
        """Those of the best candidates that have a routed call."""
        return [row for row in self.top if row.get("experts_used") is not None]


def read(store: Store, name: str) -> View:
    """A NotFoundError where there is no such campaign."""
    summary = campaign_queries.summary(store, name)
    config = stored_config(store.campaign(name).config, name)
    runs, found = queries.runs(store, name), findings(summary)
    top = campaign_queries.top(store, name, ROUTED)
    first = [1] if found.chosen is None else [1, found.chosen]
    best = [int(row["id"] or 0) for row in top]
    drawn = list(dict.fromkeys([*first, *best]))[:_CURVES]
    curves = queries.curves(store, name, drawn) + queries.curves(store, name, first, ("final",))
    finalists = list(dict.fromkeys([*reversed(first), *(row.id for row in summary.final)]))
    known = experts(store, name, finalists)
    seen = next((known[id] for id in finalists if id in known), None)
    return View(summary, config.search.budget, runs, quality(runs), found, top, curves, seen)
