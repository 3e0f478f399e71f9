"""The table that a campaign ends in: its finalists against the seed program, on the test split."""

from __future__ import annotations

from collections.abc import Sequence

from search.campaign.finals import TITLES, titles
from search.campaign.progress import FinalRow
from search.cli.output import mean_and_deviation, print_records


def print_final(rows: Sequence[FinalRow], output: str) -> None:
    """Mean and standard deviation over runs with fresh seeds; `against seed` is the difference of
    the means in bits per byte. Objectives besides the loss have a column each, of means."""
    goals = [name for name in (rows[0].goals if rows else ()) if name != "val_loss"]
    tested = titles(rows)
    scores = ("test bits/byte", "test loss", "against seed")
    columns = ("program", "id", *scores, *goals, "runs", *tested.values())
    records = [_record(row, _seed(rows)) for row in rows]
    print_records(records, columns, output, title="Test split, fresh seeds (mean ± sd)")


def _record(row: FinalRow, seed: FinalRow | None) -> dict[str, str | float | None]:
    difference = None
    if seed and not row.is_seed and row.bpb is not None and seed.bpb is not None:
        difference = f"{round(row.bpb - seed.bpb, 4) or 0.0:+.4f}"
    return {
        "program": "seed program" if row.is_seed else f"candidate {row.id}",
        "id": row.id,
        "test bits/byte": mean_and_deviation(row.bpb, row.bpb_deviation),
        "test loss": mean_and_deviation(row.loss, row.loss_deviation),
        "against seed": difference,
        **row.goals,
        "runs": f"{len(row.test_losses)} of {row.planned}",
        **{title: row.tested[name] for name, title in TITLES.items() if name in row.tested},
    }


def _seed(rows: Sequence[FinalRow]) -> FinalRow | None:
    return next((row for row in rows if row.is_seed), None)
