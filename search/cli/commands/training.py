"""Programs outside a campaign: train and score one, export one as a Keras layer."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.commands.memories import (
    MemoryEntries,
    MemoryNames,
    memory_names,
    memory_records,
    print_memories,
    scored_with_memories,
    weights_file,
)
from search.cli.commands.options import Output, Overrides, Storage
from search.cli.commands.subject import Config, DnaFile, Name, Number, SeedProgram, find
from search.errors import PrimevoError, UsageError

Start = Annotated[
    Path | None,
    typer.Option(
        "--from", metavar="DENSE",
        help="Start from a trained dense model, a weights file or an exported folder: experts are "
        "copies of its weights.",
    ),
]  # fmt: skip

if TYPE_CHECKING:
    from search.cli.commands.subject import Subject
    from workers.spec.outcome import Report


def evaluate(
    name: Name = None,
    id: Number = None,
    seed_program: SeedProgram = None,
    dna: DnaFile = None,
    config: Config = None,
    overrides: Overrides = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs, each with its seed.")] = 3,
    start: Start = None,
    memory: MemoryNames = None,
    memory_entries: MemoryEntries = 1 << 17,
    storage: Storage = None,
    output: Output = "table",
) -> None:
    """Train and score a program. Under the full budget, on validation and test."""
    from search.cli.output import print_fields, print_json, print_records
    from workers.spec.metrics import METRICS

    names = memory_names(memory)
    subject = find(name, id, seed_program, dna, config, overrides, storage)
    with TemporaryDirectory() as folder:
        dense = _dense(start, subject, Path(folder))
        reports = _train(subject, seeds, Path(folder) if names else None, dense)
        scored = scored_with_memories(subject, reports, names, memory_entries, Path(folder))
    runs = [_run_record(report) for report in reports]
    if names:
        runs = [{**run, "memories": own} for run, own in zip(runs, scored, strict=True)]
    summary = {"program": subject.title, "runs": len(runs), **_statistics(reports)}
    if output == "json":
        print_json({**summary, "runs": runs})
    elif output == "csv":
        print_records(memory_records(runs) if names else runs, (), output)
    else:
        listed = (name for name, row in METRICS.items() if row.listed and row.where != "static")
        columns = ("seed", "outcome", "val_loss", *listed)
        print_records(({**run, "seed": str(run["seed"])} for run in runs), columns, output)
        print()
        print_fields(_readable(summary), output)
        if names:
            print()
            print_memories(scored)
    if not any(report.outcome.status == "completed" for report in reports):
        raise PrimevoError(f"no run of {subject.title} completed: {reports[0].outcome.reason}")


def export(
    name: Name = None,
    id: Number = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="DIR", help="A new or empty folder; default: NAME-ID."),
    ] = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="With start values, to be trained elsewhere.")
    ] = False,
    seed_program: SeedProgram = None,
    dna: DnaFile = None,
    config: Config = None,
    overrides: Overrides = None,
    start: Start = None,
    storage: Storage = None,
) -> None:
    """Write a program as a Keras layer. Unless its weights were kept, it is trained once more."""
    from search.campaign.origin import origin_of
    from search.cli.waiting import waiting
    from workers.data.corpora import DataError
    from workers.export.export import ExportError, check_free, export_candidate
    from workers.machine.quiet import load_framework

    subject = find(name, id, seed_program, dna, config, overrides, storage)
    folder = to or Path(subject.title)
    try:
        check_free(folder)
    except ExportError as error:
        raise UsageError(f"--to: {error}") from None
    origin = origin_of(
        subject.config, subject.title, subject.campaign, subject.record, subject.told
    )
    if (origin["weights"] is None or start is not None) and not untrained:
        print(f"training {subject.title} for its weights", file=sys.stderr)
    try:
        with TemporaryDirectory() as kept, waiting(f"exporting {subject.title}") as tell:
            load_framework(subject.config.task.training.backend)
            dense = _dense(start, subject, Path(kept))
            files = export_candidate(
                subject.dna, folder, **origin, tell=tell, untrained=untrained, start=dense
            )
    except (ExportError, DataError) as error:
        raise PrimevoError(str(error)) from None
    for file in files:
        print(file)


def _dense(start: Path | None, subject: Subject, folder: Path) -> Path | None:
    """The file of the weights that `--from` names; an exported model's is written to the folder."""
    if start is None:
        return None
    from workers.export.export import ExportError
    from workers.export.reading import dense_file
    from workers.machine.quiet import load_framework

    try:
        if start.is_dir():
            load_framework(subject.config.task.training.backend)
        return dense_file(start, folder)
    except ExportError as error:
        raise UsageError(f"--from: {error}") from None


def _train(
    subject: Subject, seeds: int, weights: Path | None = None, dense: Path | None = None
) -> list[Report]:
    """Reports in the order of their seeds, which depend on the config's seed alone. Where a folder
    for weights is given, a run's are kept there under its number. All start from `dense`."""
    from primitives.language.text import render
    from search.campaign.proposal import derive
    from search.cli.running import started
    from workers.spec.outcome import Budget, Job

    spec, text = subject.config.search.budget, render(subject.dna)
    budget = Budget(spec.unit, spec.full)
    reports: list[Report] = []
    with started(subject.config) as pool:
        for index in range(seeds):
            seed = derive(subject.config.seed, "evaluate", index)
            kept = None if weights is None else str(weights_file(weights, index))
            begin = None if dense is None else str(dense.resolve())
            pool.submit(Job(index, text, budget, seed, test=True, weights=kept, start=begin))
        while len(reports) < seeds:
            for report in pool.wait(1.0):
                reports.append(report)
                told = f"{report.outcome.status} {report.outcome.reason}".strip()
                print(f"run {len(reports)} of {seeds}: {told}", file=sys.stderr)
    return sorted(reports, key=lambda report: report.job.id)


def _run_record(report: Report) -> dict[str, Any]:
    from workers.spec.metrics import all_scores

    outcome = report.outcome
    return {
        "seed": report.job.seed,
        "outcome": outcome.status,
        "reason": outcome.reason,
        **all_scores(outcome),
        "worker": report.worker,
    }


def _statistics(reports: list[Report]) -> dict[str, dict[str, float | None]]:
    """Mean and sample standard deviation over the completed runs of each metric that a run decides;
    static cost is the same in all of them."""
    from statistics import fmean, stdev

    from workers.spec.metrics import METRICS, all_scores

    completed = [report.outcome for report in reports if report.outcome.status == "completed"]
    scores = [all_scores(outcome) for outcome in completed]
    result: dict[str, dict[str, float | None]] = {}
    for name in dict.fromkeys([*METRICS, *(name for own in scores for name in own)]):
        if name not in METRICS or METRICS[name].where != "static":
            values = [value for own in scores if (value := own.get(name)) is not None]
            result[name] = {
                "mean": fmean(values) if values else None,
                "sd": stdev(values) if len(values) > 1 else None,
            }
    return result


def _readable(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary for a person; what no run measured is left out."""
    from search.cli.output import mean_and_deviation

    return {
        key: mean_and_deviation(value["mean"], value["sd"]) if isinstance(value, dict) else value
        for key, value in summary.items()
        if not isinstance(value, dict) or value["mean"] is not None
    }
