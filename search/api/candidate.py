"""A candidate as Python sees it: a recorded one, and one that is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from search.api.program import Program
from search.api.table import Row, Table
from workers.spec.outcome import Budget

COLUMNS = ("id", "mutation", "fitness", "val_bpb", "params", "hash")
"""What a table of candidates shows; its rows hold more."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recorded candidate. `record` has what was measured, with the keys of `primevo top -o json`;
    `fitness` is the validation loss in nats per token, None where it has none."""

    id: int
    program: Program
    record: Row

    @property
    def fitness(self) -> float | None:
        value = self.record["fitness"]
        return None if value is None else float(value)

    def __repr__(self) -> str:
        return f"<Candidate {self.id}, fitness {self.fitness}>\n{self.program.text}"

    def _repr_html_(self) -> str:
        return Table([self.record], COLUMNS)._repr_html_() + self.program._repr_html_()


@dataclass(frozen=True, slots=True)
class Asked:
    """A run that the caller is to do: train `program` from the random `seed` for `budget`, and tell
    how it scored on validation text. A budget's hurdles say at which points a loss above the
    threshold may end the run. `final` runs are those of the last phase: in full, without hurdles,
    and scored on the test text, too."""

    id: int
    program: Program
    seed: int
    budget: Budget
    final: bool
