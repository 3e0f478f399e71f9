"""Where a campaign stands, and what it has found."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from search.api.table import Table
from search.campaign import queries
from search.campaign.progress import Progress

if TYPE_CHECKING:
    from search.report.findings import Findings


@dataclass(frozen=True, slots=True)
class Status:
    """Where a campaign stands. `phase` is seeds, search, final or done; `verdict` is better, not
    better or cannot tell, of the chosen candidate against the seed program, and `finding` says the
    same in a sentence; `final` has a row for each finalist (test split)."""

    summary: queries.Summary
    findings: Findings

    @property
    def phase(self) -> str:
        return self.summary.progress.phase

    @property
    def progress(self) -> Progress:
        return self.summary.progress

    @property
    def verdict(self) -> str:
        return self.findings.word

    @property
    def finding(self) -> str:
        return self.findings.sentence

    @property
    def final(self) -> Table:
        rows = self.summary.final
        return Table(
            {"id": row.id, "loss": row.loss, "loss_sd": row.loss_deviation, "bpb": row.bpb,
             "bpb_sd": row.bpb_deviation, "runs": len(row.test_losses)}
            for row in rows
        )  # fmt: skip

    def _fields(self) -> dict[str, object]:
        from search.cli.display import details

        now, line = self.progress, self.summary.line
        count = f"{now.recorded} of {now.candidates}, {now.pending} pending"
        shown = {"campaign": line.name, "state": f"{line.state}, phase {now.phase}"}
        told = {"verdict": f"{self.verdict}: {self.finding}"} if now.phase == "done" else {}
        return {**shown, "candidates": count, **details(now), **told}

    def __repr__(self) -> str:
        return "\n".join(f"{key}: {value}" for key, value in self._fields().items())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{escape(key)}</th><td>{escape(str(value))}</td></tr>"
            for key, value in self._fields().items()
        )
        return f"<table>{rows}</table>"
