"""Campaigns from inside: run one, go on with one, end one, delete one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.commands.asking import deleting
from search.cli.commands.opening import open_store, option, stored_config
from search.cli.commands.options import (
    Campaign,
    ConfigFile,
    Hours,
    Output,
    Overrides,
    Storage,
    Yes,
)
from search.errors import INTERRUPTED, NotFoundError, UsageError

if TYPE_CHECKING:
    from search.campaign.queries import Summary
    from search.storage.store import CampaignRow, Store
    from workers.pool.pool import Pool


def launch(
    config: ConfigFile,
    name: Annotated[
        str | None, typer.Option("--name", help="Default: the config's, or the file's name.")
    ] = None,
    overrides: Overrides = None,
    hours: Hours = None,
    storage: Storage = None,
    output: Output = "table",
) -> None:
    """Run a campaign. It ends in a table of the best against the seed program, and a verdict."""
    from search.campaign.seeding import finder
    from search.campaign.weights import refuse_others
    from search.config.file import load
    from search.config.memory import with_memory_limit
    from search.config.plugins import versions
    from search.config.schema import campaign_name
    from search.storage.store import Store

    named = [] if name is None else [f"name={json.dumps(name)}"]
    checked, warnings = with_memory_limit(
        load(config, [*(overrides or ()), *named], finder(storage))
    )
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    chosen = checked.name or campaign_name(config.stem, "give one with --name")
    url = storage or checked.storage
    with Store.open(url) as store:
        _refuse_taken(store, chosen, url)
        refuse_others(checked.weights_folder(chosen))
        from search.cli.running import started

        with started(checked) as pool:
            campaign = store.create_campaign(
                chosen, checked.model_dump_json(), checked.seed, versions(checked.plugins)
            )
            _run(store, campaign, pool, url, output, hours)


def resume(
    name: Campaign,
    hours: Hours = None,
    candidates: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Have so many candidates in all, instead of the config's; with as many as are "
            "recorded, the final runs follow at once.",
        ),
    ] = None,
    storage: Storage = None,
    output: Output = "table",
) -> None:
    """Go on with a campaign. Nothing that was recorded is done again."""
    with open_store(storage) as store:
        campaign = store.campaign(name)
        if candidates is not None:
            from search.campaign.length import resize

            campaign = resize(store, campaign, candidates)
        if campaign.finished_at is not None:
            print(f"campaign '{name}' is finished", file=sys.stderr)
            _print_end(store, name, storage, output)
            return
        from search.cli.running import started
        from search.config.plugins import changes, versions

        config = stored_config(store, name)
        for line in changes(campaign.plugins, versions(config.plugins)):
            print(line, file=sys.stderr)
        with started(config) as pool:
            _run(store, campaign, pool, storage, output, hours)


def stop(name: Campaign, storage: Storage = None) -> None:
    """Stop a running campaign. Candidates in training end first; `primevo resume` goes on."""
    with open_store(storage) as store:
        asked = store.request_stop(store.campaign(name).id)
    if asked:
        text = f"campaign '{name}' is draining; go on by: primevo resume {name}{option(storage)}"
    else:
        text = f"campaign '{name}' is not running"
    print(text, file=sys.stderr)


def delete(name: Campaign, yes: Yes = False, storage: Storage = None) -> None:
    """Remove a campaign from the database. It asks first; files outside the database stay."""
    from search.campaign import queries
    from search.campaign.weights import discard

    with open_store(storage) as store:
        campaign = store.campaign(name)
        if store.running(campaign.id):
            raise UsageError(
                f"campaign '{name}' is running; end it first by: primevo stop "
                f"{name}{option(storage)}"
            )
        line = queries.line(store, campaign)
        counts = f"{line.recorded} candidates and {line.evaluated} training runs"
        with deleting(f"campaign '{name}' with {counts}", yes):
            store.delete(campaign)
    discard(_weights_folder(campaign))
    if (kept := _weights_folder(campaign)).is_dir():
        print(
            f"kept weights stay in {kept}; remove that folder before another campaign is named "
            f"'{name}'",
            file=sys.stderr,
        )


def _weights_folder(campaign: CampaignRow) -> Path:
    """The folder with its finalists' weights. The config is read as plain JSON: a campaign whose
    plug-in is gone can be deleted, too."""
    import json

    folder = Path(json.loads(campaign.config).get("weights", "primevo-weights")).absolute()
    return folder / campaign.name


def _refuse_taken(store: Store, name: str, storage: str) -> None:
    """Before workers start, which takes seconds; `create_campaign` checks again."""
    try:
        store.campaign(name)
    except NotFoundError:
        return
    raise UsageError(
        f"campaign '{name}' exists; go on with it by: primevo resume {name}{option(storage)}, or "
        "choose another --name"
    )


def _run(
    store: Store,
    campaign: CampaignRow,
    pool: Pool,
    storage: str | None,
    output: str,
    hours: float | None,
) -> None:
    from search.cli.running import run

    command = f"primevo resume {campaign.name}{option(storage)}"
    try:
        progress = run(store, campaign, pool, hours)
    except BaseException:
        print(f"campaign '{campaign.name}' has not ended; go on by: {command}", file=sys.stderr)
        raise
    if progress.phase != "done":
        print(f"campaign '{campaign.name}' was drained; go on by: {command}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)
    _print_end(store, campaign.name, storage, output)


def _print_end(store: Store, name: str, storage: str | None, output: str) -> None:
    from search.campaign import queries

    print_ending(queries.summary(store, name), name, storage, output)


def print_ending(summary: Summary, name: str, storage: str | None, output: str) -> None:
    """The last words of a campaign: the table, the verdict, and what to do next."""
    from search.cli.commands.overview import status_record
    from search.cli.final import print_final
    from search.cli.output import print_json, print_wrapped
    from search.report.findings import findings

    found = findings(summary)
    lost = found.word == "not better" or found.chosen is None
    id, what = (1, "the seed program") if lost else (found.chosen, f"candidate {found.chosen}")
    command = f"primevo export {name} {id} --to {name}-{id}{option(storage)}"
    if output == "json":
        print_json({**status_record(summary), "export_command": command})
        return
    if output == "csv":
        print_final(summary.final, output)
        print(found.verdict, file=sys.stderr)
        return
    if summary.final:
        print_final(summary.final, output)
        print()
    print_wrapped(found.verdict)
    if lost:
        print_wrapped(
            "more candidates (search.candidates) or another search.seeds may find a better one"
        )
    print(f"export {what}: {command}")
