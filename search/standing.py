"""Where a campaign stands, as a display shows it: views of `State`."""

from __future__ import annotations

from search.history import Ended, State
from search.progress import FinalRow, Phase, Progress, Score


def progress(state: State) -> Progress:
    tally, spec = state.tally, state.spec
    return Progress(
        phase=phase(state),
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
        stopped_at=tuple(tally.stopped_at),
        best=state.best,
        seed=_score(state.results.get(1)),
        finals_done=len(state.finals),
        finals_planned=finals_planned(state),
    )


def phase(state: State) -> Phase:
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
    runs: dict[int, list[Ended]] = {}
    for (id, _), end in sorted(state.finals.items()):
        runs.setdefault(id, []).append(end)
    rows = [_final_row(id, ends, state.spec.final.seeds) for id, ends in runs.items()]
    return tuple(sorted(rows, key=lambda row: (row.loss is None, row.loss, row.id)))


def _final_row(id: int, ends: list[Ended], planned: int) -> FinalRow:
    completed = [end for end in ends if end.status == "completed"]
    return FinalRow(
        id=id,
        is_seed=id == 1,
        planned=planned,
        val_losses=tuple(end.val_loss for end in completed if end.val_loss is not None),
        test_losses=tuple(end.test_loss for end in completed if end.test_loss is not None),
        test_bpbs=tuple(end.test_bpb for end in completed if end.test_bpb is not None),
        failed=tuple(end.status for end in ends if end.status != "completed"),
    )


def _score(end: Ended | None) -> Score | None:
    if end is None or end.fitness is None:
        return None
    return Score(end.id, end.fitness, end.val_bpb)
