"""`evaluate --memory`: what trained models score with memories, side by side."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.errors import PrimevoError, UsageError

if TYPE_CHECKING:
    from search.cli.commands.subject import Subject
    from workers.spec.outcome import Report

MemoryNames = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="NAMES",
        help="Score with memories, too: local, long, external, cache, knn; commas between.",
    ),
]
MemoryEntries = Annotated[
    int,
    typer.Option(
        "--memory-entries", min=1, help="Training positions that external and knn look into."
    ),
]


def memory_names(text: str | None) -> list[str]:
    """The names of an option's value, `none` before all others; a UsageError for one that is no
    memory's."""
    if text is None:
        return []
    from workers.memory.memories import MEMORIES

    names = [name.strip() for name in text.split(",")]
    for name in names:
        if problem := MEMORIES.problem(name):
            raise UsageError(f"--memory: {problem}")
    return list(dict.fromkeys(["none", *names]))


def weights_file(folder: Path, run: int) -> Path:
    """Where a run keeps its weights."""
    return folder / f"{run}.npz"


def scored_with_memories(
    subject: Subject, reports: Sequence[Report], names: Sequence[str], entries: int, folder: Path
) -> list[list[dict[str, Any]]]:
    """The records of each run's memories, in the order of the names; none of a run that did not
    complete, and none at all where there are no names."""
    if not names:
        return [[] for _ in reports]
    from search.cli.waiting import waiting
    from workers.data.corpora import DataError
    from workers.machine.quiet import load_framework
    from workers.memory.scores import memory_scores

    scored: list[list[dict[str, Any]]] = []
    with waiting("scoring with memories") as tell:
        load_framework(subject.config.task.training.backend)
        for done, report in enumerate(reports):
            tell(done, len(reports))
            file = weights_file(folder, report.job.id)
            if report.outcome.status != "completed":
                scored.append([])
                continue
            if not file.is_file():
                raise PrimevoError(
                    f"the weights of run {report.job.id} are not on this machine ({file}): "
                    "--memory needs workers here, or a shared TMPDIR"
                )
            try:
                made = memory_scores(subject.dna, subject.config.task, file, names, entries)
            except (DataError, ValueError) as error:
                raise PrimevoError(str(error)) from None
            print(f"run {done + 1} of {len(reports)}: scored with memories", file=sys.stderr)
            scored.append([_record(score) for score in made])
    return scored


def memory_records(runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """A record for each run and memory, with the run's seed."""
    return [{"seed": run["seed"], **record} for run in runs for record in run["memories"]]


def print_memories(scored: Sequence[Sequence[dict[str, Any]]]) -> None:
    """A table with a line for each memory: means over the runs, and standard deviations."""
    from statistics import fmean, stdev

    from search.cli.output import mean_and_deviation, print_records

    rows = []
    for own in zip(*(each for each in scored if each), strict=True):
        bits = [record["test_bpb"] for record in own]
        deviation = stdev(bits) if len(bits) > 1 else None
        rows.append(
            {
                "memory": own[0]["memory"],
                "val_bpb": fmean(record["val_bpb"] for record in own),
                "test_bpb": mean_and_deviation(fmean(bits), deviation),
                "tokens/s": round(fmean(record["tokens_per_second"] for record in own)),
                "bytes": own[0]["bytes"],
            }
        )
    print_records(rows, ("memory", "val_bpb", "test_bpb", "tokens/s", "bytes"), "table")


def _record(score: Any) -> dict[str, Any]:
    from dataclasses import asdict

    made = asdict(score)
    choice = made.pop("choice")
    return {
        **made,
        "temperature": choice["shared"],
        "apart_temperature": choice["apart"],
        "weight": choice["weight"],
    }
