"""How a campaign ends: its winner against the seed program, on the test split."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from search.campaign.progress import FinalRow
from search.campaign.queries import Summary
from search.cli.output import mean_and_deviation, print_records


def winner(summary: Summary) -> int | None:
    """The candidate that a campaign found: the best of the final phase, or, where there was none,
    the best of the search. None where nothing but the seed program completed."""
    if summary.final:
        row = _best(summary.final)
        return row.id if row else None
    best = summary.progress.best
    return best.id if best else None


def verdict(summary: Summary) -> str:
    """The result in a sentence."""
    if not summary.final:
        gain = summary.progress.gain
        if gain is None:
            return "no comparison: not both the best and the seed program have a score"
        return (
            f"the best is {gain:.4f} bits per byte under the seed program on the validation split; "
            "there was no final phase"
        )
    best, seed = _best(summary.final), _seed(summary.final)
    if best is None or best.bpb is None or seed is None or seed.bpb is None:
        return "no comparison: not both the winner and the seed program completed a final run"
    gain = seed.bpb - best.bpb
    side = "under" if gain >= 0 else "above"
    return f"candidate {best.id} is {abs(gain):.4f} bits per byte {side} the seed program"


def print_final(rows: Sequence[FinalRow], output: str) -> None:
    """Mean and standard deviation over runs with fresh seeds; `against seed` is the difference of
    the means in bits per byte."""
    columns = ("program", "id", "test bits/byte", "test loss", "against seed", "runs")
    records = [_record(row, _seed(rows)) for row in rows]
    print_records(records, columns, output, title="Test split, fresh seeds (mean ± sd)")


def _record(row: FinalRow, seed: FinalRow | None) -> dict[str, str | int | None]:
    difference = None
    if seed and not row.is_seed and row.bpb is not None and seed.bpb is not None:
        difference = f"{round(row.bpb - seed.bpb, 4) or 0.0:+.4f}"
    return {
        "program": "seed program" if row.is_seed else f"candidate {row.id}",
        "id": row.id,
        "test bits/byte": mean_and_deviation(row.bpb, row.bpb_deviation),
        "test loss": mean_and_deviation(row.loss, row.loss_deviation),
        "against seed": difference,
        "runs": f"{len(row.test_losses)} of {row.planned}",
    }


def _best(rows: Sequence[FinalRow]) -> FinalRow | None:
    found = [row for row in rows if not row.is_seed and row.val_losses]
    return min(found, key=lambda row: fmean(row.val_losses), default=None)


def _seed(rows: Sequence[FinalRow]) -> FinalRow | None:
    return next((row for row in rows if row.is_seed), None)
