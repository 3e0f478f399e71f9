"""A campaign's runs for the tools that people have: TensorBoard and MLflow."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from search.cli.commands.opening import reading
from search.cli.commands.options import Campaign, Storage
from search.errors import UsageError

Hurdle = Annotated[
    int,
    typer.Option(
        "--hurdle", metavar="N", min=0, help="Only runs that went over N hurdles, and final ones."
    ),
]


def tensorboard(
    name: Campaign,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="A folder of event files.")],
    hurdle: Hurdle = 0,
    storage: Storage = None,
) -> None:
    """Write runs for TensorBoard. Curves, scores, hyperparameters. A second call adds
    what is new."""
    _needs("tensorboard")
    from search.cli.waiting import each
    from search.report.runs import tracked_runs
    from search.report.tensorboard import write

    with reading(storage) as store:
        runs = list(tracked_runs(store, name, hurdle))
    _told(*write(each(runs, "writing runs"), to / name))
    print(to / name)


def mlflow(
    name: Campaign,
    uri: Annotated[
        str, typer.Option("--uri", metavar="URI", help="A server, or sqlite:///mlflow.db.")
    ],
    experiment: Annotated[
        str | None, typer.Option("--experiment", help="Default: the campaign's name.")
    ] = None,
    hurdle: Hurdle = 0,
    storage: Storage = None,
) -> None:
    """Write runs for MLflow. Curves, scores, parameters. A second call adds what is new."""
    _needs("mlflow")
    from search.cli.waiting import each
    from search.report.mlflow import write
    from search.report.runs import tracked_runs

    with reading(storage) as store:
        runs = list(tracked_runs(store, name, hurdle))
    _told(*write(each(runs, "adding runs"), uri, experiment or name))
    print(uri)


def _needs(package: str) -> None:
    if find_spec(package) is None:
        raise UsageError(f"{package} is not installed: pip install 'primevo[{package}]'")


def _told(runs: int, new: int) -> None:
    print(f"{runs} runs, {new} of them new", file=sys.stderr)
