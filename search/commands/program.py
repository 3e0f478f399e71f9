"""Programs and what they are made of: check a file, list seed programs and primitives."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from search.commands.opening import size_of
from search.commands.options import Output

ProgramFile = Annotated[Path, typer.Argument(metavar="FILE", help="A program's text (or JSON).")]
TaskConfig = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="CONFIG", help="Cost at this config's sizes, not the default ones."
    ),
]


def check(file: ProgramFile, config: TaskConfig = None, output: Output = "table") -> None:
    """Check a program file. Prints its hash and static cost."""
    from search.configfile import task_of
    from search.output import print_fields
    from search.programs import read_program

    dna = read_program(file)
    print_fields({"file": str(file), **size_of(dna, task_of(config))}, output)
    print(f"{file} type-checks: no output can see the future", file=sys.stderr)


def seeds(config: TaskConfig = None, output: Output = "table") -> None:
    """List the seed programs with their size."""
    from primitives.seeds import load_seed, seed_names, seed_text
    from search.configfile import task_of
    from search.output import print_records
    from search.programs import headline

    task = task_of(config)
    rows = [
        {"name": name, "about": headline(seed_text(name)), **size_of(load_seed(name), task)}
        for name in seed_names()
    ]
    columns = ("name", "instructions", "parameters", "flops_per_token", "about")
    print_records(rows, columns, output)


def primitives(output: Output = "table") -> None:
    """List what programs are made of."""
    from primitives.table import PRIMITIVES
    from search.output import print_records

    rows = [
        {"name": row.name, "tf": row.tf, "reads": list(row.reads), "meaning": row.meaning}
        for row in PRIMITIVES.values()
    ]
    print_records(rows, ("name", "tf", "reads", "meaning"), output)
