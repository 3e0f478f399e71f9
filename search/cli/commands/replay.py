"""A campaign derived again from its log."""

from __future__ import annotations

import sys
from dataclasses import asdict

import typer

from search.cli.commands.opening import reading
from search.cli.commands.options import Campaign, Output, Storage


def replay(name: Campaign, storage: Storage = None, output: Output = "table") -> None:
    """Derive a campaign again. Every candidate is compared with what was recorded."""
    from search.campaign.replay import replay as derive
    from search.cli.output import print_fields

    with reading(storage) as store:
        found = derive(store, name)
    for note in found.notes:
        print(note, file=sys.stderr)
    if output != "table":
        print_fields(asdict(found), output)
    elif found.difference is None:
        print(f"replayed {found.candidates} candidates: all the same")
    else:
        print(f"replayed {found.candidates} candidates; then {found.difference}")
    if found.difference is not None:
        raise typer.Exit(1)
