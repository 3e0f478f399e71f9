"""Databases as such: brought to the newest schema, checked, copied from."""

from __future__ import annotations

from typing import Annotated

import typer

from search.cli.commands.importing import As, checked_name, print_copied
from search.cli.commands.options import DEFAULT_STORAGE, Output, Storage

app = typer.Typer(
    help="Look after a database. Upgrade its schema, check it, copy campaigns to another one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def upgrade(
    storage: Storage = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="REVISION",
            help="Default: the newest. An older one is for an earlier version of Primevo.",
        ),
    ] = None,
) -> None:
    """Bring a database to the newest schema. Every row stays."""
    from search.storage import schema
    from search.storage.address import name
    from search.storage.database import clear_errors, connecting, understanding

    target = to or schema.HEAD
    with (
        connecting(storage or DEFAULT_STORAGE) as engine,
        clear_errors(engine),
        understanding(engine),
    ):
        before = schema.migrate(engine, target)
        place = name(engine.url)
    if before == target:
        print(f"{place} has schema revision {target}; there is nothing to do")
    else:
        print(f"{place} went from schema revision {before or 'none'} to {target}")


@app.command()
def check(storage: Storage = None, output: Output = "table") -> None:
    """Look for damage in a database. A line for each thing found, and exit code 1."""
    from search.campaign import integrity
    from search.cli.output import print_json
    from search.secret import without_passwords

    verdict = integrity.check(storage or DEFAULT_STORAGE)
    findings = [without_passwords(line) for line in verdict.findings]
    seen = {
        "campaigns": verdict.campaigns,
        "candidates": verdict.candidates,
        "evaluations": verdict.evaluations,
    }
    if output == "json":
        print_json({**seen, "findings": findings})
    elif findings:
        print("\n".join(findings))
    else:
        print("sound: " + ", ".join(f"{count} {what}" for what, count in seen.items()))
    if findings:
        raise typer.Exit(1)


@app.command()
def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="A database's URL.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="Another one's.")],
    campaign: Annotated[
        str | None,
        typer.Option("--campaign", metavar="NAME", help="Copy this campaign alone; default: all."),
    ] = None,
    rename: As = None,
) -> None:
    """Copy campaigns with their prunings to another database; without --campaign, runs of studies
    and prunings of other programs, too. All of it arrives, or nothing does."""
    from search.storage import transfer

    print_copied(transfer.copy(source, target, campaign, checked_name(rename)))
