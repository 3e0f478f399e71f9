"""What compare, explain, simplify and study have recorded: listed and deleted."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from search.cli.commands.asking import deleting
from search.cli.commands.opening import open_store, reading
from search.cli.commands.options import Output, Storage, Wide, Yes

app = typer.Typer(
    help="Look after recorded runs of studies. List and delete what compare, explain, simplify and "
    "study trained.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Study = Annotated[
    str, typer.Argument(metavar="STUDY", help="As `studies list` calls it, e.g. 'explain small 7'.")
]


@app.command(name="list")
def list_studies(wide: Wide = False, storage: Storage = None, output: Output = "table") -> None:
    """List the studies that have recorded runs."""
    from search.cli.output import moment, print_records
    from search.study import kept

    with reading(storage) as store:
        rows = [
            {**asdict(each), "first_at": moment(each.first_at), "last_at": moment(each.last_at)}
            for each in kept.studies(store)
        ]
    columns = ("study", "programs", "runs", *(("first_at", "last_at") if wide else ()))
    print_records(rows, columns, output, flexible="study", wide=wide)


@app.command()
def runs(
    study: Study, wide: Wide = False, storage: Storage = None, output: Output = "table"
) -> None:
    """List a study's runs. -o json has the task of each, too."""
    from search.cli.output import moment, print_records
    from search.study import kept

    with reading(storage) as store:
        rows = [
            {**row, "finished_at": moment(row["finished_at"])} for row in kept.runs(store, study)
        ]
    columns = ("hash", "seed", "outcome", "val_loss", "amount", "unit")
    more = ("worker", "finished_at") if wide else ()
    print_records(rows, (*columns, *more), output, wide=wide)


@app.command()
def delete(study: Study, yes: Yes = False, storage: Storage = None) -> None:
    """Delete a study's runs. It asks first; the same command trains them again."""
    from search.study import kept

    with open_store(storage) as store:
        found = kept.of_study(store, study)
        what = f"{found.runs} runs of {found.programs} programs of study '{study}'"
        with deleting(what, yes):
            kept.forget(store, study)
