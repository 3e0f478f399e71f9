"""A study over a grid: `primevo study`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.commands.options import Output, Overrides, Storage, Wide
from search.errors import PrimevoError

if TYPE_CHECKING:
    from search.config.grid import StudyConfig
    from search.study.scaling import Scaled

StudyFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="A study's YAML file.")]


def study(
    config: StudyFile,
    overrides: Overrides = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print the grid and what it costs; train nothing.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Write charts as an HTML file.")
    ] = None,
    wide: Wide = False,
    storage: Storage = None,
    output: Output = "table",
) -> None:
    """Train a grid of programs and sizes. Fits power laws, says where one beats a baseline."""
    from search.config.gridfile import load_study

    checked = load_study(config, overrides or ())
    if plan:
        _print_plan(checked, output, wide)
        return
    found = _trained(checked, storage or checked.storage)
    if plot is not None:
        from search.study import gridcharts

        gridcharts.write(found, plot)
        print(plot, file=sys.stderr)
    _print(found, output, wide)
    if not any(cell.losses for cell in found.cells):
        raise PrimevoError("no run completed; the failed ones stand under `failed` in -o json")


def _trained(config: StudyConfig, url: str) -> Scaled:
    """The study on the config's workers, which Ctrl-C drains."""
    from search.cli.running import interruptions, on_demand
    from search.config.gridfile import tasks
    from search.storage.store import Store
    from search.study.runner import Runner
    from search.study.scaling import scale

    with Store.open(url) as store, on_demand(config, tasks(config)) as workers:
        runner = Runner(
            str(config.name), workers, store, lambda line: print(line, file=sys.stderr)
        )  # fmt: skip
        with interruptions(runner.drain):
            return scale(runner, config)


def _print(found: Scaled, output: str, wide: bool) -> None:
    from search.cli.output import columns_of_stdout, print_json, print_records
    from search.study.gridcharts import draw
    from search.study.scaling import law_records, records, sentences

    rows = records(found)
    if output == "json":
        print_json({"cells": rows, "laws": law_records(found), "findings": sentences(found)})
        return
    if output == "csv":
        print_records(rows, (), output)
        return
    shown = _rows(found, rows)
    title = "Bits a byte on the validation text; against " + (
        f"{found.config.measure} at equal cost, paired, ± 95 % interval"
    )
    print_records(shown, tuple(shown[0]), output, title, flexible="cell", wide=wide)
    print(f"\n{draw(found, min(columns_of_stdout(), 100), 24, not sys.stdout.isatty())}\n")
    print("\n".join(sentences(found)))


def _rows(found: Scaled, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "cell": row["cell"],
            row["unit"]: f"{row['amount']:g}",
            "bits a byte": row["val_bpb"],
            "frontier": "*" if row["frontier"] else "",
            "FLOPs a token": _whole(row["flops_per_token"]),
            "params": _whole(row["params"]),
            "equal FLOPs": _told(row, "at_equal_flops_per_token"),
            "equal params": _told(row, "at_equal_params"),
            "equal time": _told(row, "at_equal_step_time_s"),
            "step ms": None if row["step_time_s"] is None else 1000 * row["step_time_s"],
            "x FLOPs": _told(row, "speedup_flops", signed=False),
            "x seconds": _told(row, "speedup_seconds", signed=False),
            "runs": row["runs"],
        }
        for row in rows
    ]


def _told(row: Mapping[str, Any], name: str, signed: bool = True) -> str | None:
    """-0.0310 ± 0.0098, half of the interval's width; the centre alone where there is none."""
    centre, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    if centre is None:
        return None
    text = f"{centre:+.4f}" if signed else f"{centre:.2f}"
    if low is None or high is None:
        return text
    return f"{text} ± {(high - low) / 2:.{4 if signed else 2}f}"


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _print_plan(config: StudyConfig, output: str, wide: bool) -> None:
    from search.cli.output import print_records
    from search.study.grid import plan

    rows = plan(config)
    runs = len({(row["hash"], row["task"]) for row in rows}) * config.seeds
    shown = [{key: value for key, value in row.items() if key != "task"} for row in rows]
    print_records(shown, tuple(shown[0]), output, flexible="cell", wide=wide)
    budget = config.budget
    print(
        f"{len(rows)} points, {runs} runs of {budget.full:g} {budget.unit}, each scored at "
        f"{len(budget.amounts)} amounts",
        file=sys.stderr,
    )
