"""This machine: is everything there that a campaign needs?"""

from __future__ import annotations

import typer

from search.cli.commands.options import Output, Storage


def doctor(storage: Storage = None, output: Output = "table") -> None:
    """Check this machine. Python, packages, corpus, caches, database, Ray, devices."""
    from dataclasses import asdict

    from search.cli.doctor import examine
    from search.cli.output import print_records

    findings = examine(storage)
    rows = [{**asdict(finding), "ok": finding.ok} for finding in findings]
    print_records(rows, ("check", "ok", "detail"), output)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
