"""Arguments and options that several verbs share, and what they mean to a command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

DEFAULT_STORAGE = "sqlite:///primevo.db"

Format = Literal["table", "json", "csv"]
Output = Annotated[Format, typer.Option("--output", "-o", help="How the data is printed.")]
Wide = Annotated[
    bool, typer.Option("--wide", "-w", help="Every column, on lines as long as they need to be.")
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        envvar="PRIMEVO_STORAGE",
        metavar="URL",
        help=f"Database (SQLAlchemy URL); default: the config's, or {DEFAULT_STORAGE}.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a config key; may be repeated."),
]
Plugins = Annotated[
    list[str] | None,
    typer.Option("--plugin", metavar="MODULE", help="Load a plug-in first; may be repeated."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")]
Hours = Annotated[
    float | None,
    typer.Option(
        "--hours", min=0.0, help="End the search after so many hours; the final runs follow."
    ),
]
Campaign = Annotated[str, typer.Argument(metavar="NAME", help="A campaign's name.")]
Candidate = Annotated[int, typer.Argument(metavar="ID", help="A candidate's number.", min=1)]
ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="A campaign's YAML file.")]
