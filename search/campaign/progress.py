"""Where a campaign stands, for displays and reports: frozen snapshots of its state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Literal

from search.campaign.history import Score, State
from search.storage.events import Ended
from workers.spec.outcome import Unit

if TYPE_CHECKING:
    from search.config.schema import BudgetSpec, SearchSpec

Phase = Literal["seeds", "search", "final", "done"]
Reach = Literal["trained in full", "stopped at a hurdle", "paused at a hurdle"]


def reach_of(passed: int, budget: BudgetSpec, phase: Phase) -> Reach:
    """How far a candidate came that completed and passed so many hurdles, in a campaign that is at
    this phase: one that is paused may go on until the search ends."""
    if passed >= budget.hurdles:
        return "trained in full"
    searching = phase in ("seeds", "search")
    return "paused at a hurdle" if budget.promotes and searching else "stopped at a hurdle"


def held_back(
    at_hurdles: Sequence[int], budget: BudgetSpec, phase: Phase
) -> tuple[tuple[int, ...], int]:
    """Of the completed candidates that stand at each hurdle: how many each has stopped, and how
    many are paused in all."""
    stopped = tuple(
        count if reach_of(place, budget, phase) == "stopped at a hurdle" else 0
        for place, count in enumerate(at_hurdles)
    )
    return stopped, sum(at_hurdles) - sum(stopped)


@dataclass(frozen=True, slots=True)
class FinalRow:
    """One program of the final phase: losses and bits per byte, one for each completed run;
    `failed` holds the outcomes of the other runs. `goals` has the means of the campaign's
    objectives, where it has several, `tested` those of the other metrics of test text, such as
    calibration. The winner is chosen by the validation losses, so that the
    test split, which all else here speaks of, stays unseen by any choice."""

    id: int
    is_seed: bool
    planned: int
    val_losses: tuple[float, ...]
    test_losses: tuple[float, ...]
    test_bpbs: tuple[float, ...]
    failed: tuple[str, ...]
    goals: Mapping[str, float | None] = field(default_factory=dict)
    tested: Mapping[str, float] = field(default_factory=dict)

    @property
    def loss(self) -> float | None:
        return fmean(self.test_losses) if self.test_losses else None

    @property
    def bpb(self) -> float | None:
        return fmean(self.test_bpbs) if self.test_bpbs else None

    @property
    def loss_deviation(self) -> float | None:
        """Sample standard deviation over runs; None for fewer than two."""
        return stdev(self.test_losses) if len(self.test_losses) > 1 else None

    @property
    def bpb_deviation(self) -> float | None:
        return stdev(self.test_bpbs) if len(self.test_bpbs) > 1 else None


@dataclass(frozen=True, slots=True)
class Progress:
    """A campaign at one moment.

    `candidates` is the campaign's total, `recorded` those proposed so far, `pending` those of them
    without an outcome, `outcomes` the trained ones by how they ended (duplicates not among them).
    Budget amounts are in `unit` and count completed runs: `spent` by training, `saved_by_hurdles`
    against training each in full, `saved_by_duplicates` for outcomes taken over. `stopped_at`
    counts the candidates that each hurdle stopped, and `paused` those that wait at a hurdle and may
    still go on. `reached` and `went_on` count at each hurdle the children that it judged, of
    `children` that were trained, and `meant` is the share that should go on from one. `seed` is the
    first seed program.
    """

    phase: Phase
    candidates: int
    recorded: int
    pending: int
    outcomes: Mapping[str, int]
    rejected: Mapping[str, int]
    duplicates: int
    unit: Unit
    spent: float
    saved_by_duplicates: float
    saved_by_hurdles: float
    stopped_at: tuple[int, ...]
    children: int
    reached: tuple[int, ...]
    went_on: tuple[int, ...]
    meant: float
    paused: int
    best: Score | None
    seed: Score | None
    finals_done: int
    finals_planned: int

    @property
    def trained(self) -> int:
        """Candidates that were trained to an outcome."""
        return sum(self.outcomes.values())

    @property
    def in_full(self) -> tuple[float, float] | None:
        """The share of trained children that went over every hurdle, and the share that was meant
        to; None where there are no hurdles or no children."""
        if not (self.went_on and self.children):
            return None
        return self.went_on[-1] / self.children, self.meant ** len(self.went_on)

    @property
    def gain(self) -> float | None:
        """How far the best candidate is under the first seed program, in bits per byte."""
        if self.best is None or self.seed is None:
            return None
        if self.best.val_bpb is None or self.seed.val_bpb is None:
            return None
        return self.seed.val_bpb - self.best.val_bpb


def progress(state: State) -> Progress:
    """A snapshot of the state."""
    tally, spec, now = state.tally, state.spec, phase(state)
    stopped_at, paused = held_back(tally.held_at, spec.budget, now)
    return Progress(
        phase=now,
        candidates=spec.candidates,
        recorded=state.candidates,
        pending=len(state.pending),
        outcomes=dict(tally.outcomes),
        rejected=dict(tally.rejected),
        duplicates=tally.duplicates,
        unit=spec.budget.unit,
        spent=tally.spent,
        saved_by_duplicates=tally.saved_by_duplicates,
        saved_by_hurdles=tally.saved_by_hurdles,
        stopped_at=stopped_at,
        children=tally.children,
        reached=tuple(tally.reached),
        went_on=tuple(tally.went_on),
        meant=1 / spec.budget.eta,
        paused=paused,
        best=state.best,
        seed=_score(state.results.get(1)),
        finals_done=len(state.finals),
        finals_planned=finals_planned(state),
    )


def phase(state: State) -> Phase:
    """What the campaign is at: its seed programs, its children, its finalists, or nothing more."""
    if not state.searched:
        return "search" if state.seeds_done else "seeds"
    return "final" if len(state.finals) < finals_planned(state) else "done"


def finals_planned(state: State) -> int:
    """Runs of the final phase; until the search has ended, as many as it may have."""
    final = state.spec.final
    if state.searched:
        return len(state.finalists) * final.seeds
    return (final.top + 1) * final.seeds if final.top else 0


def final_table(state: State) -> tuple[FinalRow, ...]:
    """The finalists that have ended a final run, the lowest mean test loss first."""
    return final_rows(state.finals.values(), state.spec)


def final_rows(ends: Iterable[Ended], spec: SearchSpec) -> tuple[FinalRow, ...]:
    """The rows of `final_table` from the endings of final runs."""
    runs: dict[int, list[Ended]] = {}
    for end in sorted(ends, key=lambda end: (end.id, end.seed)):
        runs.setdefault(end.id, []).append(end)
    rows = [_final_row(id, own, spec) for id, own in runs.items()]
    return tuple(sorted(rows, key=lambda row: (row.loss is None, row.loss, row.id)))


def _final_row(id: int, ends: list[Ended], spec: SearchSpec) -> FinalRow:
    completed = [end for end in ends if end.status == "completed"]
    return FinalRow(
        id=id,
        is_seed=id == 1,
        planned=spec.final.seeds,
        val_losses=tuple(end.val_loss for end in completed if end.val_loss is not None),
        test_losses=tuple(end.test_loss for end in completed if end.test_loss is not None),
        test_bpbs=tuple(end.test_bpb for end in completed if end.test_bpb is not None),
        failed=tuple(end.status for end in ends if end.status != "completed"),
        goals={
            name: _mean(end.goals[place] for end in completed)
            for place, name in enumerate(spec.goals)
        },
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _score(end: Ended | None) -> Score | None:
    if end is None or end.fitness is None:
        return None
    return Score(end.id, end.fitness, end.val_bpb)
