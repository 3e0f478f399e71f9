"""Programs compared by training: compare several, explain a winner, make it shorter."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.commands.options import Campaign, Candidate, Output, Overrides, Storage, Wide
from search.errors import PrimevoError, UsageError

if TYPE_CHECKING:
    from search.config.schema import CampaignConfig
    from search.storage.store import Store
    from search.study.setting import Setting
    from search.study.simplification import Simplified
    from search.study.study import Study

Seeds = Annotated[
    int | None,
    typer.Option("--seeds", min=1, help="Runs of each program; default: those of the final phase."),
]
TaskConfig = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="CONFIG", help="Task and budget; default: those of the campaign."
    ),
]


def compare(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="A B...", help="NAME/ID, a seed program, a program file, an export's folder."
        ),
    ],
    config: TaskConfig = None,
    overrides: Overrides = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs of each program.")] = 3,
    scale: Annotated[
        str,
        typer.Option("--scale", metavar="KEY=N,...", help="Train at another d_model, layers, ..."),
    ] = "",
    points: Annotated[
        int,
        typer.Option(
            "--points", min=0, max=1000, help="Times that a run is scored before its end."
        ),
    ] = 10,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Write charts as an HTML file.")
    ] = None,
    wide: Wide = False,
    storage: Storage = None,
    output: Output = "table",
) -> None:
    """Compare programs with the first. At equal budget, and by how soon each reaches its loss."""
    from search.study import comparison
    from search.study.setting import scaled, setting
    from search.study.subjects import as_subjects, grouped, opened

    named = grouped(words)
    if len(named) < 2:
        raise UsageError("name two programs or more; the first is the baseline")
    checked = _config(named, config, overrides, storage)
    checked = scaled(checked, _sizes(scale)) if scale else checked
    shared = setting(checked, seeds, points=points)
    with opened(named, checked, storage or checked.storage) as (store, programs):
        subjects = as_subjects(programs, shared)
        with _study("compare", shared, checked, store) as study:
            found = comparison.compare(study, subjects)
    if plot is not None:
        from search.study import charts

        charts.write(found, plot)
        print(plot, file=sys.stderr)
    rows = comparison.records(found)
    _print(rows, output, _compared_rows(rows), title=_about(found.score, found.unit), wide=wide)
    if not any(row["runs"] for row in rows):
        raise PrimevoError("no run completed; the failed ones stand under `failed` in -o json")


def explain(
    name: Campaign,
    id: Candidate,
    seeds: Seeds = None,
    wide: Wide = False,
    storage: Storage = None,
    output: Output = "table",
) -> None:
    """Tell which changes carry a candidate's gain. Each is trained alone and left out alone."""
    from search.cli.commands.opening import open_store, stored_config
    from search.study import explanation
    from search.study.ancestors import ancestors
    from search.study.setting import setting
    from workers.spec.metrics import METRICS

    with open_store(storage) as store:
        config = stored_config(store, name)
        lineage = ancestors(store, name, id)
        shared = setting(config, seeds or config.search.final.seeds)
        with _study(f"explain {name} {id}", shared, config, store) as study:
            found = explanation.explain(study, lineage)
    if found.idle:
        steps = ", ".join(map(str, found.idle))
        print(f"the program computes the same without the changes of {steps}", file=sys.stderr)
    rows = explanation.records(found)
    title = f"Gain of each change in {METRICS[found.score].unit} ({found.score}), 95 % intervals"
    _print(rows, output, _explained_rows(rows), title=title, wide=wide, flexible="change")


def simplify(
    name: Campaign,
    id: Candidate,
    seeds: Seeds = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance", min=0, metavar="NATS",
            help="How much the mean validation loss may rise; default: its runs' deviation.",
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="Write the shorter program there.")
    ] = None,
    storage: Storage = None,
    output: Output = "table",
) -> None:  # fmt: skip
    """Make a candidate shorter. What has no effect is taken away, as fresh runs confirm."""
    from primitives.language.text import render
    from search.cli.commands.opening import open_store, stored_config
    from search.study import simplification
    from search.study.setting import setting
    from search.study.study import Subject
    from search.study.subjects import candidate_program

    with open_store(storage) as store:
        config = stored_config(store, name)
        count = seeds or max(2, config.search.final.seeds)
        shared = setting(config, count)
        fresh = setting(config, count, first=count).seeds
        subject = Subject.of(f"{name}/{id}", candidate_program(store, name, id), shared)
        with _study(f"simplify {name} {id}", shared, config, store) as study:
            found = simplification.simplify(study, subject, fresh, tolerance)
    if to is not None:
        _write(to, render(found.program) + "\n")
    _print_simplified(found, render(found.program), output)


@contextmanager
def _study(name: str, shared: Setting, config: CampaignConfig, store: Store) -> Iterator[Study]:
    """A study on the config's workers, which Ctrl-C drains."""
    from search.cli.running import interruptions, on_demand
    from search.study.study import Study

    with on_demand(config) as workers:
        study = Study(name, shared, workers, store, lambda line: print(line, file=sys.stderr))
        with interruptions(study.drain):
            yield study


def _config(
    named: Sequence[str], config: Path | None, overrides: list[str] | None, storage: str | None
) -> CampaignConfig:
    """The config that was given, or that of the first candidate's campaign."""
    from search.cli.commands.opening import open_store, stored_config
    from search.config.file import load
    from search.study.subjects import candidate_of

    if config is not None:
        return load(config, overrides or ())
    if overrides:
        raise UsageError("--set goes with --config")
    first = next((found for word in named if (found := candidate_of(word))), None)
    if first is None:
        raise UsageError("programs from outside a campaign need --config CONFIG")
    with open_store(storage) as store:
        return stored_config(store, first[0])


def _sizes(scale: str) -> dict[str, int]:
    """d_model=256,layers=6 as numbers by name."""
    found: dict[str, int] = {}
    for part in scale.split(","):
        key, equals, value = part.partition("=")
        if not equals or not value.strip().isdecimal():
            raise UsageError(f"--scale {part!r}: write KEY=N, e.g. --scale d_model=256,layers=6")
        found[key.strip()] = int(value)
    return found


def _about(score: str, unit: str) -> str:
    return f"{score} ({unit}) against the first program, paired, ± 95 % interval"


def _compared_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "program": row["program"],
            "mean": row["mean"],
            "against": _interval(row, "difference", signed=True),
            "verdict": row["verdict"],
            "x FLOPs": _interval(row, "speedup_flops", digits=2),
            "x seconds": _interval(row, "speedup_seconds", digits=2),
            "reached": row["reached"],
            "s to reach": row["seconds_to_reach"],
            "step ms": None if row["step_time_s"] is None else 1000 * row["step_time_s"],
            "runs": row["runs"],
            "params": row["params"],
        }
        for row in rows
    ]


_SHORT = {"no clear effect": "unclear", "no effect": "none", "cannot stand alone": "not alone"}
"""Words of an effect as a table of 80 columns has room for."""


def _explained_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "id": row["id"],
            "alone in the seed": _told(row, "inserted"),
            "gone from the winner": _told(row, "removed"),
            "change": f"{row['mutation']}: {_said(row)}{_together(row['removed_with'])}",
        }
        for row in rows
    ]


def _said(row: Mapping[str, Any]) -> str:
    """The change in words; where there are none, its lines."""
    return str(row["change"] or row["lines"])


def _told(row: Mapping[str, Any], side: str) -> str | None:
    """helps +0.0310 ± 0.0098."""
    word = row[side]
    if word is None:
        return None
    gain = "" if word == "no effect" else _interval(row, f"{side}_gain", side, signed=True)
    return f"{_SHORT.get(word, word)} {gain or ''}".strip()


def _together(ids: Sequence[int]) -> str:
    return f" (gone together with {', '.join(map(str, ids))})" if ids else ""


def _interval(
    row: Mapping[str, Any], name: str, ends: str = "", *, signed: bool = False, digits: int = 4
) -> str | None:
    """2.9670 ± 0.0169, half of the interval's width; the centre alone where there is none."""
    centre, low, high = row[name], row[f"{ends or name}_low"], row[f"{ends or name}_high"]
    if centre is None:
        return None
    text = f"{centre:{'+' if signed else ''}.{digits}f}"
    return text if low is None or high is None else f"{text} ± {(high - low) / 2:.{digits}f}"


def _print(
    rows: Sequence[Mapping[str, Any]],
    output: str,
    shown: Sequence[Mapping[str, Any]],
    title: str,
    wide: bool,
    flexible: str = "",
) -> None:
    from search.cli.output import print_records

    if output == "table":
        print_records(shown, tuple(shown[0]), output, title, flexible=flexible, wide=wide)
    else:
        print_records(rows, (), output)


def _print_simplified(found: Simplified, program: str, output: str) -> None:
    from dataclasses import asdict

    from search.cli.output import print_json, print_records

    tried = [asdict(each) for each in found.deletions]
    against = found.against.difference if found.against else None
    if output == "json":
        print_json({
            "instructions_before": found.before,
            "instructions": found.after,
            "tolerance": found.tolerance,
            "score": found.score,
            "difference": asdict(against) if against else None,
            "finding": found.sentence,
            "deletions": tried,
            "program": program,
        })  # fmt: skip
        return
    print_records(tried, ("place", "instead", "result", "difference"), output)
    if output == "csv":
        return
    print(f"\n{found.sentence}\n\n{program}")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PrimevoError(f"--to {path}: cannot be written ({error.strerror})") from None
    print(path, file=sys.stderr)
