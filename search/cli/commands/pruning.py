"""A trained model made smaller."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.commands.options import Output, Overrides, Storage
from search.cli.commands.subject import Config, DnaFile, Name, Number, SeedProgram, find
from search.errors import PrimevoError, UsageError

if TYPE_CHECKING:
    from search.cli.commands.subject import Subject
    from workers.pruning.pruning import Settings
    from workers.pruning.target import Target

DEFAULT_STEPS = 1000
"""Steps where the budget is not in steps."""


def prune(
    name: Name = None,
    id: Number = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="DIR", help="A new or empty folder; default: NAME-ID-pruned."),
    ] = None,
    sparsity: Annotated[
        float | None,
        typer.Option("--sparsity", metavar="SHARE", help="Of the blocks' parameters, this share."),
    ] = None,
    target_speedup: Annotated[
        float | None,
        typer.Option("--target-speedup", metavar="N", help="To this many times fewer FLOPs."),
    ] = None,
    finalists: Annotated[
        bool, typer.Option("--finalists", help="Every candidate of NAME whose weights were kept.")
    ] = False,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=2, help="Half while units go, half after; default: a run's."),
    ] = None,
    baselines: Annotated[
        bool, typer.Option(help="Train other ways to a model of this size beside it.")
    ] = True,
    seed_program: SeedProgram = None,
    dna: DnaFile = None,
    config: Config = None,
    overrides: Overrides = None,
    storage: Storage = None,
    output: Output = "table",
) -> None:
    """Make a trained model smaller. What goes is learned; the rest is exported as a Keras layer."""
    from workers.data.corpora import DataError
    from workers.export.export import ExportError
    from workers.pruning.failure import PruningError

    share = _share(sparsity, target_speedup)
    if finalists:
        if id is not None or name is None:
            raise UsageError("--finalists goes with a campaign's NAME alone")
        numbers = _kept(name, storage)
        subjects = [find(name, each, None, None, config, overrides, storage) for each in numbers]
    else:
        subjects = [find(name, id, seed_program, dna, config, overrides, storage)]
    folders = _folders(subjects, to, name if finalists else None)
    rows: list[dict[str, Any]] = []
    for subject, folder in zip(subjects, folders, strict=True):
        try:
            rows += _pruned(subject, folder, share, steps, baselines)
        except (ExportError, DataError, PruningError) as error:
            if not finalists:
                raise PrimevoError(f"{subject.title}: {error}") from None
            print(f"{subject.title}: {error}", file=sys.stderr)
            continue
        print(folder, file=sys.stderr)
    if not rows:
        raise PrimevoError(f"no finalist of {name} could be pruned; stderr says why of each")
    _print(rows, output)


def _share(sparsity: float | None, speedup: float | None) -> tuple[str, float]:
    """What is measured, and the share of it that is to go."""
    if (sparsity is None) == (speedup is None):
        raise UsageError("say how much is to go: --sparsity SHARE or --target-speedup N")
    if sparsity is not None:
        if not 0 < sparsity < 1:
            raise UsageError(f"--sparsity must be above 0 and below 1, got {sparsity}")
        return "parameters", sparsity
    assert speedup is not None
    if not 1 < speedup < float("inf"):
        raise UsageError(f"--target-speedup must be above 1, got {speedup}")
    return "flops", 1 - 1 / speedup


def _kept(name: str, storage: str | None) -> list[int]:
    """The campaign's candidates whose weights were kept, the best first."""
    from search.campaign import queries
    from search.cli.commands.opening import reading, stored_config

    with reading(storage) as store:
        config = stored_config(store, name)
        ranked = [int(row["id"] or 0) for row in queries.top(store, name, count=1000)]
    found = [id for id in ranked if config.weights_file(name, id).is_file()]
    if not found:
        folder = config.weights_file(name, 0).parent
        raise PrimevoError(
            f"no weights of {name} are kept in {folder}; name a candidate, which is then trained: "
            f"primevo prune {name} ID"
        )
    return found


def _folders(subjects: Sequence[Subject], to: Path | None, campaign: str | None) -> list[Path]:
    """Where each model goes; all of them are free."""
    from workers.export.export import ExportError, check_free

    if campaign is None:
        folders = [to or Path(f"{subjects[0].title}-pruned")]
    else:
        folders = [(to or Path(f"{campaign}-pruned")) / subject.title for subject in subjects]
    try:
        for folder in folders:
            check_free(folder)
    except ExportError as error:
        raise UsageError(f"--to: {error}") from None
    return folders


def _pruned(
    subject: Subject, folder: Path, share: tuple[str, float], steps: int | None, baselines: bool
) -> list[dict[str, Any]]:
    """Prunes one model, exports it, and gives the rows of its table."""
    from search.campaign.origin import origin_of
    from search.cli.waiting import waiting
    from workers.export.export import export_cut
    from workers.machine.quiet import load_framework

    origin = origin_of(
        subject.config, subject.title, subject.campaign, subject.record, subject.told
    )
    load_framework(subject.config.task.training.backend)
    from workers.pruning.card import about, records
    from workers.pruning.pruning import prune as prune_model
    from workers.pruning.target import Target

    graph, values, trained = _weights(subject, origin)
    asked = steps or (trained if trained > 1 else DEFAULT_STEPS)
    target = Target(share[0], share[1])  # type: ignore[arg-type]  # one of the two measures
    settings = _settings(target, asked, int(origin["seed"]), baselines, trained)
    with waiting(f"pruning {subject.title}") as tell:
        made = prune_model(
            graph, subject.config.task, values, settings,
            watch=lambda progress: tell(progress.done, progress.total),
        )  # fmt: skip
    told = about(made, settings)
    card = {**origin["card"], "program": f"{subject.title} pruned", "pruned": told}
    export_cut(
        subject.dna, folder, task=subject.config.task, cut=made.shape.graphs, weights=made.values,
        card=card,
    )  # fmt: skip
    print(f"{subject.title}: {told['said']}", file=sys.stderr)
    return [{"program": subject.title, **row} for row in records(made.rows)]


def _settings(target: Target, steps: int, seed: int, baselines: bool, trained: int) -> Settings:
    from workers.pruning.pruning import Settings

    return Settings(target, steps, seed, baselines, trained)


def _weights(subject: Subject, origin: dict[str, Any]) -> tuple[Any, list[Any], int]:
    """The program's graph, the trained weights in the model's order, and the steps that they were
    trained for: those that were kept, or of a run made for it now."""
    import tempfile

    from search.cli.waiting import waiting
    from workers.export.export import ExportError, trained_weights
    from workers.training.evaluate import evaluate

    task, budget = subject.config.task, origin["budget"]
    if origin["weights"] is not None:
        graph, values = trained_weights(subject.dna, task, origin["weights"])
        kept = subject.record or {}
        return (
            graph,
            values,
            int(budget.amount if budget.unit == "steps" else kept.get("steps") or 0),
        )
    print(f"training {subject.title} for its weights", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder, waiting(f"training {subject.title}") as tell:
        file = Path(folder, "weights.npz")
        outcome = evaluate(subject.dna, task, budget, origin["seed"], weights=str(file), tell=tell)
        if outcome.status != "completed":
            raise ExportError(f"training ended as {outcome.status} ({outcome.reason})")
        graph, values = trained_weights(subject.dna, task, file)
    return graph, values, outcome.steps


def _print(rows: list[dict[str, Any]], output: str) -> None:
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
