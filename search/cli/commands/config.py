"""Configs: write an example, check one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from search.cli.commands.options import ConfigFile, Output, Overrides
from search.errors import UsageError


def init(
    example: Annotated[
        str, typer.Argument(help="Which one; a wrong name is told with all of them.")
    ] = "quickstart",
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="Default: EXAMPLE.yaml.")
    ] = None,
) -> None:
    """Write an example config, ready to launch."""
    from search.config import examples

    content = examples.text(example)
    path = to or Path(f"{example}.yaml")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError:
        raise UsageError(f"{path} exists; name another file with --to") from None
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
    print(path)
    print(f"next: primevo launch {path}", file=sys.stderr)


def validate(config: ConfigFile, overrides: Overrides = None, output: Output = "table") -> None:
    """Check a config, of a campaign or a study. Prints it whole, with the defaults filled in."""
    from search.campaign.seeding import finder
    from search.cli.output import print_fields, print_json, print_records
    from search.config.file import load
    from search.config.gridfile import is_study, load_study
    from search.config.memory import with_memory_limit

    if is_study(config, overrides or ()):
        data = load_study(config, overrides or ()).model_dump(mode="json")
    else:
        checked = load(config, overrides or (), finder())
        for warning in with_memory_limit(checked)[1]:
            print(f"warning: {warning}", file=sys.stderr)
        data = checked.model_dump(mode="json")
    if output == "json":
        print_json(data)
    elif output == "csv":
        lines = ({"key": key, "value": value} for key, value in _flat(data).items())
        print_records(lines, ("key", "value"), output)
    else:
        print_fields(_titled(_flat(data)), output)
    print(f"{config} is a valid config", file=sys.stderr)


def _titled(flat: dict[str, object]) -> dict[str, object]:
    """With the names of programs in the place of their texts, which JSON and CSV have."""
    from search.config.programfile import title_of

    seeds = flat.get("search.seeds")
    if not isinstance(seeds, list):
        return flat
    return flat | {"search.seeds": [title_of(name) for name in seeds]}


def _flat(data: dict[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
