"""Campaigns from outside: where one stands, which there are, its best candidates."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.commands.opening import reading, stored_config
from search.cli.commands.options import Campaign, Output, Storage, Wide
from search.errors import NotFoundError

if TYPE_CHECKING:
    from search.campaign.queries import CampaignLine, Summary


def status(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Default: the newest campaign.")
    ] = None,
    storage: Storage = None,
    output: Output = "table",
) -> None:
    """Tell where a campaign stands. Outcomes, duplicates saved, best against seed, ETA."""
    from search.campaign import queries
    from search.cli.final import print_final
    from search.cli.output import print_fields, print_records

    with reading(storage) as store:
        if name is None:
            campaigns = store.campaigns()
            if not campaigns:
                raise NotFoundError("no campaign yet; start one by: primevo launch CONFIG")
            name = campaigns[-1].name
        summary = queries.summary(store, name)
        record = _status_fields(summary) if output == "table" else status_record(summary)
    print_fields(record, output)
    if output != "table":
        return
    if summary.progress.rejected:
        print()
        print_records(
            _refusals(summary), ("reason", "count"), output, "Refused before training",
            flexible="reason",
        )  # fmt: skip
    if summary.failures:
        print()
        rows = [asdict(failure) for failure in summary.failures]
        print_records(
            rows, ("outcome", "count", "first", "reason"), output, "Ended without a result",
            flexible="reason",
        )  # fmt: skip
    if summary.final:
        print()
        print_final(summary.final, output)
    _print_verdict(summary)


def list_campaigns(wide: Wide = False, storage: Storage = None, output: Output = "table") -> None:
    """List the campaigns of a database."""
    from search.campaign import queries
    from search.cli.output import print_records

    with reading(storage) as store:
        rows = [_line_record(line) for line in queries.campaigns(store)]
    columns = ("name", "state", "recorded", "best_bpb", "created_at")
    more = ("finished_at", "evaluated", "best_fitness", "seed") if wide else ()
    print_records(rows, (*columns, *more), output, flexible="name", wide=wide)


def top(
    name: Campaign,
    count: Annotated[
        int | None, typer.Option("-n", min=1, help="How many; 10 unless all of a front are shown.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by", metavar="FIELD", help="What to rank by; with --pareto, a further objective."
        ),
    ] = None,
    pareto: Annotated[
        bool, typer.Option("--pareto", help="Those that no other beats in all objectives.")
    ] = False,
    wide: Wide = False,
    storage: Storage = None,
    output: Output = "table",
) -> None:
    """Rank the best candidates. Distinct programs only, the best FIELD first: the lowest, or the
    highest where more is better. --pareto shows the front of the campaign's objectives instead."""
    from search.campaign import queries
    from search.cli.output import print_records
    from workers.spec.metrics import METRICS

    summary = None
    with reading(storage) as store:
        stored_config(store, name)  # its plug-ins' metrics can be ranked by from here on
        if pareto:
            goals, records = queries.front(store, name, by)
        else:
            by = by or "fitness"
            goals, records = (by,), queries.top(store, name, count or 10, by)
        if output == "table":
            summary = queries.summary(store, name)
    metrics = {name: row for name, row in METRICS.items() if row.where != "test"}
    listed = [name for name, row in metrics.items() if wide or row.listed]
    shown = ["id", "mutation", "fitness", *goals, *listed, "hash"]
    if any(str(record["reason"]).startswith("paused") for record in records):
        shown.insert(2, "reason")
    if wide:
        shown[1:1] = ["parent_id"]
    print_records(records[:count], tuple(dict.fromkeys(shown)), output, wide=wide)
    if summary is not None:
        _print_verdict(summary)


def _print_verdict(summary: Summary) -> None:
    """What fresh runs say of the candidate that the campaign offers, once there are any."""
    from search.cli.output import print_wrapped
    from search.report.findings import findings

    if summary.progress.phase == "done" or any(row.test_losses for row in summary.final):
        print()
        print_wrapped(findings(summary).verdict)


def status_record(summary: Summary) -> dict[str, Any]:
    """`status -o json` and `-o csv`. Budget amounts are in `unit`, bits per byte those of the
    validation split, except in `final` (test split)."""
    from search.report.findings import findings

    progress, beat, found = summary.progress, summary.heartbeat, findings(summary)
    live = beat if summary.line.state in ("running", "draining") else None
    return {
        **_line_record(summary.line),
        "phase": progress.phase,
        "candidates": progress.candidates,
        "pending": progress.pending,
        "trained": progress.trained,
        "outcomes": progress.outcomes,
        "duplicates": progress.duplicates,
        "rejected": progress.rejected,
        "unit": progress.unit,
        "budget_spent": progress.spent,
        "budget_saved_by_duplicates": progress.saved_by_duplicates,
        "budget_saved_by_hurdles": progress.saved_by_hurdles,
        "stopped_at_hurdle": progress.stopped_at,
        "reached_hurdle": progress.reached,
        "went_on_at_hurdle": progress.went_on,
        "meant_to_go_on": progress.meant,
        "paused": progress.paused,
        "trained_in_full": progress.in_full and progress.in_full[0],
        "meant_to_be_trained_in_full": progress.in_full and progress.in_full[1],
        "best": progress.best and asdict(progress.best),
        "seed_program": progress.seed and asdict(progress.seed),
        "gain_bpb": progress.gain,
        "running": live.running if live else 0,
        "capacity": live.capacity if live else None,
        "waiting": live.waiting if live else None,
        "eta_s": live.eta_s if live else None,
        "stopped": summary.stopped,
        "failures": [asdict(failure) for failure in summary.failures],
        "final": [
            {**asdict(row), "loss": row.loss, "loss_sd": row.loss_deviation,
             "bpb": row.bpb, "bpb_sd": row.bpb_deviation}
            for row in summary.final
        ],
        "verdict": found.word,
        "finding": found.sentence,
        "chosen": found.chosen,
    }  # fmt: skip


def _line_record(line: CampaignLine) -> dict[str, Any]:
    from search.cli.output import moment

    times = {"created_at": moment(line.created_at), "finished_at": moment(line.finished_at)}
    return {**asdict(line), **times}


def _refusals(summary: Summary) -> list[dict[str, Any]]:
    """Why children were refused before training, the most frequent reason first."""
    counted = sorted(summary.progress.rejected.items(), key=lambda item: (-item[1], item[0]))
    return [{"reason": reason, "count": count} for reason, count in counted]


def _status_fields(summary: Summary) -> dict[str, Any]:
    from search.cli.display import details, machine

    line, progress, beat = summary.line, summary.progress, summary.heartbeat
    live = beat if line.state in ("running", "draining") else None
    fields: dict[str, Any] = {
        "campaign": line.name,
        "state": f"{line.state}, phase {progress.phase}",
        "candidates": f"{progress.recorded} of {progress.candidates}, {progress.pending} pending",
        **machine(live),
        **details(progress),
    }
    if summary.stopped is not None:
        fields["stopped"] = summary.stopped
        fields["go on by"] = f"primevo resume {line.name}"
    return fields
