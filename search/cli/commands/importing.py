"""Campaigns of another database."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.commands.options import DEFAULT_STORAGE, Storage

if TYPE_CHECKING:
    from search.storage.transfer import Transfer

As = Annotated[
    str | None,
    typer.Option("--as", metavar="NAME", help="Another name for it, where it is one campaign."),
]


def import_campaigns(
    source: Annotated[str, typer.Argument(metavar="OTHER", help="A SQLite file, or a URL.")],
    campaign: Annotated[
        str | None,
        typer.Option(
            "--campaign", metavar="NAME", help="Take over this campaign alone; default: all."
        ),
    ] = None,
    rename: As = None,
    storage: Storage = None,
) -> None:
    """Take over campaigns of another database. Their prunings and its runs of studies come with
    them. All of it arrives, or nothing does; a later campaign may start from one: search.seeds:
    [campaign:NAME]."""
    from search.storage import transfer

    url = source if "://" in source else f"sqlite:///{source}"
    name = checked_name(rename)
    print_copied(transfer.copy(url, storage or DEFAULT_STORAGE, campaign, name))


def checked_name(name: str | None) -> str | None:
    """A new name for a campaign, if one is given; a UsageError for what cannot be one."""
    from search.config.schema import campaign_name

    return None if name is None else campaign_name(name, "give another one with --as")


def print_copied(arrived: Transfer) -> None:
    """A line for each thing that arrived."""
    for copied in arrived.campaigns:
        print(
            f"copied campaign '{copied.name}': {copied.candidates} candidates and "
            f"{copied.evaluations} evaluations"
        )
    for count, what in ((arrived.prunings, "prunings"), (arrived.study_runs, "runs of studies")):
        if count:
            print(f"copied {count} {what}")
    if left := _left(arrived):
        print(f"left {left}, of no campaign; they come along without --campaign", file=sys.stderr)
    print(
        "kept weights and the files of prunings lie beside the database and were not copied",
        file=sys.stderr,
    )


def _left(arrived: Transfer) -> str:
    """What stayed where it was, in words."""
    counts = {
        "prunings of other programs": arrived.prunings_left,
        "runs of studies": arrived.study_runs_left,
    }
    return " and ".join(f"{count} {what}" for what, count in counts.items() if count)
