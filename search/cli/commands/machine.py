"""This machine: is everything there that a campaign needs?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.cli.commands.options import Output, Storage


def doctor(
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="CONFIG", help="Check what this config needs, too."),
    ] = None,
    storage: Storage = None,
    output: Output = "table",
) -> None:
    """Check this machine. Python, packages, plug-ins, corpora, caches, database, Ray, devices."""
    from dataclasses import asdict

    from search.cli.doctor import examine
    from search.cli.output import print_records
    from search.cli.waiting import waiting

    with waiting("looking at this machine"):
        findings = examine(storage, config)
    rows = [{**asdict(finding), "ok": finding.ok} for finding in findings]
    print_records(rows, ("check", "ok", "detail"), output, flexible="detail")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
