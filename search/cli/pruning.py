"""A pruning at the edge: the weights that it starts from, its row, its progress, and Ctrl-C."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.campaign.origin import origin_of
from search.cli.commands.subject import Subject
from search.cli.display import Display, Snapshot, make_display
from search.cli.output import stderr
from search.cli.running import interruptions
from search.storage.store import Store
from search.study import prunings
from search.study.prunings import Asked, Question
from workers.machine.quiet import load_framework
from workers.pruning.checkpoint import Checkpoint

if TYPE_CHECKING:
    from workers.pruning.pruning import Progress

DEFAULT_STEPS = 1000
"""Steps where the budget is not in steps."""

NOTE_S = 2.0
"""Seconds between two notes in the database."""

WEIGHTS = "whole"
"""The part of a checkpoint that holds the weights of a model that was trained for it."""


def pruned(subject: Subject, asked: Asked, to: Path, store: Store) -> list[dict[str, Any]]:
    """Prunes one model, or goes on with it, exports it, and gives the rows of its table.

    Raises PruningError, Interrupted among them, DataError and ExportError."""
    origin = origin_of(
        subject.config, subject.title, subject.campaign, subject.record, subject.told
    )
    question = _question(subject, asked, origin)
    load_framework(subject.config.task.training.backend)
    from workers.export.export import export_cut
    from workers.pruning.card import about, records
    from workers.pruning.pruning import Settings, prune
    from workers.pruning.target import Target

    checkpoint = Checkpoint(question.folder)
    with checkpoint.holding():
        number = prunings.begun(store, question)
        with _watched(subject.title, store, number) as (watch, stopped):
            graph, values, trained = _weights(subject, origin, checkpoint, watch)
            steps = asked.steps or (trained if trained > 1 else DEFAULT_STEPS)
            target = Target(asked.measure, asked.share)  # type: ignore[arg-type]  # checked before
            settings = Settings(target, steps, int(origin["seed"]), asked.baselines, trained)
            task = subject.config.task
            made = prune(graph, task, values, settings, checkpoint, watch, stopped)
        told = about(made, settings)
        prunings.finish(store, number, told)
    card = {**origin["card"], "program": f"{subject.title} pruned", "pruned": told}
    export_cut(
        subject.dna, to, task=task, cut=made.shape.graphs, weights=made.values, card=card
    )  # fmt: skip
    print(f"{subject.title}: {told['said']}", file=sys.stderr)
    return [{"program": subject.title, **row} for row in records(made.rows)]


def _question(subject: Subject, asked: Asked, origin: dict[str, Any]) -> Question:
    file, budget = origin["weights"], origin["budget"]
    weights = f"{budget.unit} {budget.amount}"
    if file is not None:
        weights = blake2b(file.read_bytes(), digest_size=16).hexdigest()
    candidate = int(subject.record["id"] or 0) if subject.record else None
    return Question(
        subject.title, subject.dna, subject.config, subject.campaign, candidate,
        int(origin["seed"]), weights, asked,
    )  # fmt: skip


@contextmanager
def _watched(
    title: str, store: Store, number: int
) -> Iterator[tuple[Callable[[Progress], None], Callable[[], bool]]]:
    """What shows and notes progress, and what says whether to stop: after the first Ctrl-C."""
    asked: list[str] = []  # a signal handler must not print: the next snapshot does
    noted = [0.0]

    def drain() -> None:
        asked.append("stopping soon, with all kept; Ctrl-C again stops at once")

    def watch(progress: Progress) -> None:
        if asked and asked[-1]:
            display.note(asked[-1])
            asked.append("")
        display.show(snapshot(progress))
        if time.monotonic() >= noted[0]:
            prunings.note(store, number, asdict(progress))
            noted[0] = time.monotonic() + NOTE_S

    display: Display
    with make_display(stderr(), title) as display, interruptions(drain):
        yield watch, lambda: bool(asked)


def snapshot(progress: Progress) -> Snapshot:
    """What is shown of a pruning."""
    facts: dict[str, str] = {}
    if progress.loss is not None:
        facts["loss"] = f"{progress.loss:.3f} nats"
    if progress.share_gone is not None:
        facts["gone"] = f"{progress.share_gone:.1%} expected"
    return Snapshot(progress.phase, progress.done, progress.total, facts)


def _weights(
    subject: Subject, origin: dict[str, Any], checkpoint: Checkpoint, watch: Callable[..., None]
) -> tuple[Any, list[Any], int]:
    """The program's graph, the trained weights in the model's order, and the steps that they were
    trained for: those that were kept, or of a run made for it now."""
    from primitives.graph.build import Graph
    from workers.export.export import trained_weights
    from workers.spec.fit import task_graph

    task, budget = subject.config.task, origin["budget"]
    if origin["weights"] is not None:
        graph, values = trained_weights(subject.dna, task, origin["weights"])
        kept = subject.record or {}
        known = budget.amount if budget.unit == "steps" else kept.get("steps") or 0
        return graph, values, int(known)
    if (found := checkpoint.part(WEIGHTS)) is None:
        found = _trained(subject, origin, watch)
        checkpoint.finish(WEIGHTS, found)
    checked = task_graph(subject.dna, task)
    assert isinstance(checked, Graph)  # it was trained
    *values, steps = found
    return checked, values, int(steps)


def _trained(subject: Subject, origin: dict[str, Any], watch: Callable[..., None]) -> list[Any]:
    """The weights of a run of the subject, and how many steps it had."""
    import tempfile

    import numpy as np

    from workers.export.export import ExportError, trained_weights
    from workers.pruning.pruning import Progress
    from workers.training.evaluate import evaluate

    def tell(done: float, total: float) -> None:
        watch(Progress("training the whole model", int(done), int(total)))

    task = subject.config.task
    tell(0, 0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "weights.npz")
        outcome = evaluate(
            subject.dna, task, origin["budget"], origin["seed"], weights=str(file), tell=tell
        )
        if outcome.status != "completed":
            raise ExportError(f"training ended as {outcome.status} ({outcome.reason})")
        _, values = trained_weights(subject.dna, task, file)
    return [*values, np.asarray(outcome.steps)]


def print_models(rows: list[dict[str, Any]], output: str) -> None:
    """The table. Of the models that came out of pruning, `front` marks those that no other one
    beats in both speed and bits a byte."""
    from search.cli.output import print_records
    from search.evolution.pareto import ranks

    ours = [row for row in rows if row["model"] == "pruned"]
    points = [(row["test_bpb"], -row["tokens_per_s_batch_32"]) for row in ours]
    for row, rank in zip(ours, ranks(points), strict=True):
        row["front"] = rank == 0
    if output != "table":
        print_records(rows, tuple(rows[0]), output)
        return
    several = len(ours) > 1
    shown = [
        {
            **({"program": row["program"]} if several else {}),
            "model": row["model"],
            "layers": row["layers"],
            "params": row["parameters"],
            "val_bpb": row["val_bpb"],
            "test_bpb": row["test_bpb"],
            "x batch 1": f"{row['speedup_batch_1']:.2f}",
            "x batch 32": f"{row['speedup_batch_32']:.2f}",
            **({"front": "yes" if row.get("front") else ""} if several else {}),
            "steps": row["steps"],
        }
        for row in rows
    ]
    title = "Tokens a second over the whole model's, forward, in this process"
    print_records(shown, tuple(shown[0]), output, title)
