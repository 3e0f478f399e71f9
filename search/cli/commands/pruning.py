"""A trained model made smaller."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.commands.opening import open_store
from search.cli.commands.options import Output, Overrides, Storage
from search.cli.commands.subject import Config, DnaFile, Name, Number, SeedProgram, find
from search.errors import INTERRUPTED, PrimevoError, UsageError

if TYPE_CHECKING:
    from search.cli.commands.subject import Subject
    from search.storage.store import Store
    from search.study.prunings import Asked


def prune(
    name: Name = None,
    id: Number = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="DIR", help="A new or empty folder; default: NAME-ID-pruned."),
    ] = None,
    sparsity: Annotated[
        float | None,
        typer.Option(
            "--sparsity", metavar="SHARE", help="Take out this share of the blocks' parameters."
        ),
    ] = None,
    target_speedup: Annotated[
        float | None,
        typer.Option(
            "--target-speedup", metavar="N", help="Take out until FLOPs are N times fewer."
        ),
    ] = None,
    finalists: Annotated[
        bool, typer.Option("--finalists", help="Every candidate of NAME whose weights were kept.")
    ] = False,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            min=2,
            help="Training steps, half of them while units go; default: as in a run.",
        ),
    ] = None,
    baselines: Annotated[
        bool, typer.Option(help="Compare with other ways to a model of this size.")
    ] = True,
    seed_program: SeedProgram = None,
    dna: DnaFile = None,
    config: Config = None,
    overrides: Overrides = None,
    storage: Storage = None,
    output: Output = "table",
) -> None:
    """Make a trained model smaller. What goes is learned; the rest is exported as a Keras layer.
    After an interruption, the same command goes on."""
    from search.cli.pruning import print_models
    from search.study.prunings import Asked

    asked = Asked(*_share(sparsity, target_speedup), steps, baselines)
    if finalists:
        if id is not None or name is None:
            raise UsageError("--finalists goes with a campaign's NAME alone")
        numbers = _kept(name, storage)
        subjects = [find(name, each, None, None, config, overrides, storage) for each in numbers]
    else:
        subjects = [find(name, id, seed_program, dna, config, overrides, storage)]
    folders = _folders(subjects, to, name if finalists else None)
    with _opened(subjects[0], storage) as store:
        rows = _all_pruned(subjects, folders, asked, store, alone=not finalists)
    if not rows:
        raise PrimevoError(f"no finalist of {name} could be pruned; stderr says why of each")
    print_models(rows, output)


def _opened(subject: Subject, storage: str | None) -> Store:
    """The database that a candidate is in, or that of the config, made where it is not there."""
    from search.storage.store import Store

    if subject.campaign is not None:
        return open_store(storage)
    return Store.open(storage or subject.config.storage)


def _all_pruned(
    subjects: Sequence[Subject], folders: Sequence[Path], asked: Asked, store: Store, alone: bool
) -> list[dict[str, Any]]:
    """The rows of each model's table. Of several, one that fails does not end the others."""
    from search.cli.pruning import pruned
    from workers.data.corpora import DataError
    from workers.export.export import ExportError
    from workers.pruning.failure import Interrupted, PruningError

    rows: list[dict[str, Any]] = []
    for subject, folder in zip(subjects, folders, strict=True):
        try:
            rows += pruned(subject, asked, folder, store)
        except Interrupted as error:
            print(f"{subject.title}: stopped {error}; the same command goes on", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        except (ExportError, DataError, PruningError) as error:
            if alone:
                raise PrimevoError(f"{subject.title}: {error}") from None
            print(f"{subject.title}: {error}", file=sys.stderr)
            continue
        print(folder, file=sys.stderr)
    return rows


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
