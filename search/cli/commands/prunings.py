"""What prune has recorded: listed, shown and deleted."""

from __future__ import annotations

from typing import Annotated

import typer

from search.cli.commands.asking import deleting
from search.cli.commands.opening import open_store, reading
from search.cli.commands.options import Output, Storage, Wide, Yes

app = typer.Typer(
    help="Look after prunings. List, show and delete what prune has recorded.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Id = Annotated[int, typer.Argument(metavar="ID", min=1, help="As `prunings list` numbers it.")]

COLUMNS = ("id", "program", "target", "state", "gone", "test_bpb", "speedup_batch_32")


@app.command(name="list")
def list_prunings(wide: Wide = False, storage: Storage = None, output: Output = "table") -> None:
    """List prunings, with how far each is. One that was interrupted goes on by the command that
    began it."""
    from search.cli.output import print_records
    from search.study import prunings

    with reading(storage) as store:
        rows = [each.record for each in prunings.prunings(store)]
    more = ("phase", "steps", "of", "params", "whole_bpb", "speedup_batch_1") if wide else ()
    print_records(rows, (*COLUMNS, *more), output, flexible="program", wide=wide)


@app.command()
def show(id: Id, storage: Storage = None, output: Output = "table") -> None:
    """Show one. How far it is, and at its end the models side by side. -o json has all that the
    card says of it."""
    from search.cli.output import print_fields, print_json
    from search.cli.pruning import print_models
    from search.study import prunings

    with reading(storage) as store:
        found = prunings.pruning(store, id)
        record, result = found.record, found.result
        models = [{"program": found.program, **row} for row in (result or {}).get("table", ())]
    if output == "json":
        print_json({**record, "result": result})
        return
    print_fields({key: value for key, value in record.items() if value is not None}, output)
    if output == "table" and models:
        print()
        print_models(models, output)


@app.command()
def delete(id: Id, yes: Yes = False, storage: Storage = None) -> None:
    """Delete one. It asks first; its files go, too, and what was exported stays."""
    from search.study import prunings

    with open_store(storage) as store:
        found = prunings.pruning(store, id)
        what = f"pruning {id} of {found.program} ({found.target})"
        with deleting(what, yes):
            prunings.forget(store, found)
