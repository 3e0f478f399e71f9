"""The command `primevo`: its verbs, in the order of a first use.

Only typer is imported here; a verb imports what it needs when it runs, so `--help` stays quick.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from search.cli.commands import (
    campaign,
    candidate,
    config,
    database,
    grid,
    importing,
    machine,
    overview,
    program,
    pruning,
    prunings,
    replay,
    report,
    studies,
    study,
    tracking,
    training,
    ui,
    writing,
)
from search.collection import seldom_collected
from search.errors import INTERRUPTED, PrimevoError
from search.secret import without_passwords


class Verbs(TyperGroup):
    """One place where a failure becomes one message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PrimevoError as error:
            print(f"primevo: {without_passwords(str(error))}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=Verbs,
    help="Evolve Transformer blocks, remember every candidate, export the winner as a Keras layer.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"primevo {version('primevo')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


_NAMES = {"list_campaigns": "list", "import_campaigns": "import"}
"""Verbs whose names are Python's own."""

for verb in (
    config.init, campaign.launch, campaign.resume, campaign.stop, campaign.delete,
    importing.import_campaigns,
    overview.status, overview.list_campaigns, overview.top, ui.ui,
    candidate.show, candidate.lineage, replay.replay, report.curve, report.mutations, report.report,
    tracking.tensorboard, tracking.mlflow, training.export, pruning.prune, writing.generate,
    training.evaluate,
    study.compare, study.explain, study.simplify, grid.study,
    program.check, config.validate, program.seeds, program.primitives, machine.doctor,
):  # fmt: skip
    app.command(_NAMES.get(verb.__name__, verb.__name__))(verb)
app.add_typer(studies.app, name="studies")
app.add_typer(prunings.app, name="prunings")
app.add_typer(database.app, name="db")


def main() -> None:
    with seldom_collected():  # imports make many objects, all to stay
        app(prog_name="primevo")  # also under `python -m`: completion is for this name
