"""Programs and what they are made of: check a file, list seed programs and primitives."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.commands.opening import candidate_program, reading, size_of
from search.cli.commands.options import Output, Plugins, Storage, Wide
from search.cli.commands.subject import SeedProgram
from search.errors import PrimevoError, UsageError

if TYPE_CHECKING:
    from primitives.language.dna import DNA
    from workers.spec.task import Task

ProgramFile = Annotated[
    Path | None,
    typer.Argument(metavar="[FILE]", help="A program's text or JSON, or an export's card.json."),
]
Finalists = Annotated[
    str | None, typer.Option("--finalists", metavar="NAME", help="A campaign's finalists instead.")
]
Oracle = Annotated[
    bool,
    typer.Option("--oracle", help="Train on random tokens, too, and see whether it beats chance."),
]
Steps = Annotated[int, typer.Option("--steps", min=1, help="Training steps of the oracle.")]
TaskConfig = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="CONFIG", help="Cost at this config's sizes, not the default ones."
    ),
]


def check(
    file: ProgramFile = None,
    seed_program: SeedProgram = None,
    finalists: Finalists = None,
    config: TaskConfig = None,
    oracle: Oracle = False,
    steps: Steps = 1000,
    plugins: Plugins = None,
    wide: Wide = False,
    storage: Storage = None,
    output: Output = "table",
) -> None:
    """Check a program. Prints its hash and static cost; with --oracle, that it cannot cheat."""
    from search.cli.output import print_fields, print_records
    from search.config.file import task_of
    from search.config.plugins import load_plugins

    load_plugins(plugins or ())
    task = task_of(config)
    rows = []
    for title, dna in _programs(file, seed_program, finalists, storage, task.model.d_model):
        print(f"{title} type-checks: {_causality(dna)}", file=sys.stderr)
        tried = _verdict(title, dna, steps) if oracle else {}
        rows.append({"program": title, **size_of(dna, task), **tried})
    if len(rows) == 1 and finalists is None:
        print_fields(rows[0], output)
    else:
        print_records(rows, _check_columns(rows[0], wide), output, wide=wide)
    leaking = [str(row["program"]) for row in rows if row.get("leaks")]
    if leaking:
        raise PrimevoError(f"the oracle says that {', '.join(leaking)} sees what it predicts")


def _check_columns(row: Mapping[str, object], wide: bool) -> tuple[str, ...]:
    """What the table shows: the oracle's words before the sizes."""
    if wide:
        return tuple(row)
    narrow = ("program", "leaks", "loss", "bound", "hash", "instructions", "parameters")
    return tuple(name for name in (*narrow, "flops_per_token") if name in row)


def _programs(
    file: Path | None,
    seed_program: str | None,
    finalists: str | None,
    storage: str | None,
    d_model: int,
) -> list[tuple[str, DNA]]:
    from search.config.programfile import load_seed_program, read_program

    if sum(given is not None for given in (file, seed_program, finalists)) != 1:
        raise UsageError("name one program: FILE or --seed-program NAME; or --finalists NAME")
    if file is not None:
        return [(str(file), read_program(file, d_model))]
    if seed_program is not None:
        return [(seed_program, load_seed_program(seed_program, d_model))]
    assert finalists is not None
    from search.campaign import queries

    with reading(storage) as store:
        ids = [row.id for row in queries.summary(store, finalists).final]
        if not ids:
            raise UsageError(f"campaign '{finalists}' has no finalists yet; check a FILE instead")
        return [(f"{finalists} {id}", candidate_program(store, finalists, id)) for id in ids]


def _causality(dna: DNA) -> str:
    from primitives.graph.build import IllTyped, build

    causal = build(dna)
    if isinstance(causal, IllTyped):
        return f"in bidirectional tasks alone, as {causal}"
    return "no output can see the future"


def _verdict(title: str, dna: DNA, steps: int) -> dict[str, float | bool]:
    from search.cli.waiting import waiting
    from workers.machine.quiet import load_framework
    from workers.training.oracle import TASK, oracle

    with waiting(f"training {title} on random tokens") as tell:
        load_framework(TASK.training.backend)
        made = oracle(dna, steps, tell=tell)
    return {**asdict(made), "leaks": made.leaks}


def seeds(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Print this one in full.")
    ] = None,
    config: TaskConfig = None,
    plugins: Plugins = None,
    wide: Wide = False,
    output: Output = "table",
) -> None:
    """List the seed programs, or print one. A line each; NAME prints the whole program file."""
    from primitives.programs.seeds import seed_names, seed_text
    from search.cli.output import print_fields, print_records
    from search.config.file import task_of
    from search.config.plugins import load_plugins
    from search.config.programfile import first_sentence, load_seed_program

    load_plugins(plugins or ())
    task = task_of(config)
    if name is not None:
        dna = load_seed_program(name, task.model.d_model)  # its error has the near miss
        text = seed_text(name)
        if output != "table":
            print_fields({**_seed_record(name, dna, task), "text": text}, output)
        else:
            print(text, end="" if text.endswith("\n") else "\n")
        return
    rows = [
        _seed_record(each, load_seed_program(each, task.model.d_model), task)
        for each in seed_names()
    ]
    if output == "table":
        rows = [{**row, "about": first_sentence(str(row["about"]))} for row in rows]
    sizes = ("instructions", "parameters", "active_parameters", "flops_per_token", "hash")
    columns = ("name", *(sizes if wide else ("parameters",)), "about")
    print_records(rows, columns, output, flexible="about", cut=True, wide=wide)


def _seed_record(name: str, dna: DNA, task: Task) -> dict[str, int | str]:
    from primitives.programs.seeds import seed_text
    from search.config.programfile import headline

    return {"name": name, "about": headline(seed_text(name)), **size_of(dna, task)}


def primitives(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="CONFIG", help="List those of this config's plug-ins, too."
        ),
    ] = None,
    plugins: Plugins = None,
    wide: Wide = False,
    output: Output = "table",
) -> None:
    """List what programs are made of."""
    from primitives.ops.table import PRIMITIVES
    from search.cli.output import print_records
    from search.config.file import task_of
    from search.config.plugins import load_plugins

    load_plugins(plugins or ())
    task_of(config)
    rows = [
        {"name": row.name, "tf": row.tf, "reads": list(row.reads), "meaning": row.meaning}
        for row in PRIMITIVES.values()
    ]
    columns = ("name", "tf", "reads", "meaning") if wide else ("name", "tf", "meaning")
    print_records(rows, columns, output, flexible="meaning", wide=wide)
