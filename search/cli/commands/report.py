"""What a person looks at: validation-loss curves in the terminal, and a campaign's page."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from search.cli.commands.opening import reading
from search.cli.commands.options import Campaign, Output, Storage
from search.errors import PrimevoError

if TYPE_CHECKING:
    from search.report.data import MutationRow, Quality
    from search.report.queries import Curve, Point
    from search.storage.store import Store

_CURVE_COLUMNS = ("id", "steps", "tokens", "train_seconds", "val_loss")


def curve(
    name: Campaign,
    ids: Annotated[
        list[int] | None,
        typer.Argument(metavar="[ID]...", min=1, help="Candidates; default: the best."),
    ] = None,
    x: Annotated[
        Literal["steps", "tokens", "seconds"], typer.Option("--x", help="What runs to the right.")
    ] = "steps",
    final: Annotated[
        bool, typer.Option("--final", help="The final runs, too, with kind and seed in tables.")
    ] = False,
    training: Annotated[
        bool, typer.Option("--training", help="The losses of training, too: train_loss in tables.")
    ] = False,
    storage: Storage = None,
    output: Annotated[
        Literal["plot", "table", "csv", "json"],
        typer.Option("--output", "-o", help="How the data is printed."),
    ] = "plot",
) -> None:
    """Draw loss curves. Validation losses of candidates against the first seed program."""
    from search.report import queries

    with reading(storage) as store:
        wanted = _wanted(store, name, ids)
        curves = queries.curves(store, name, wanted, ("search", "final") if final else ("search",))
    if output == "plot":  # a run that diverged at its first score has no finite one
        curves = [each for each in curves if any(p.val_loss is not None for p in each.points)]
    missing = [id for id in wanted if id not in {each.id for each in curves}]
    if missing:
        _say_missing(name, missing)
    if not curves:
        raise PrimevoError(f"campaign '{name}' has no curve to draw yet; look at: primevo status")
    if output == "plot":
        _plot(curves, x, training)
    else:
        _print_points(curves, output, final, training)


def mutations(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Campaigns.")],
    storage: Storage = None,
    output: Output = "table",
) -> None:
    """Tell which mutations paid. How far children are under their parent at equal training, with
    95% intervals, in one campaign or in several together."""
    from search.cli.output import print_records
    from search.report import data, queries

    with reading(storage) as store:
        runs = data.together(queries.runs(store, name) for name in names)
    score = data.quality(runs)
    records = [_mutation(row, score) for row in data.mutation_rows(runs)]
    columns = ("mutation", *_COUNTS, "gain", "gain_low", "gain_high", "best_gain")
    print_records(records, columns, output, f"Gains in {score.unit}")


_COUNTS = ("children", "duplicates", "trained", "compared", "better")


def _mutation(row: MutationRow, score: Quality) -> dict[str, Any]:
    gain = row.gain and row.gain.times(score.factor)
    return {
        "mutation": row.mutation,
        **{name: getattr(row, name) for name in _COUNTS},
        "share_better": row.share,
        "gain": gain and gain.centre,
        "gain_low": gain and gain.low,
        "gain_high": gain and gain.high,
        "best_gain": score.of(row.best),
        "unit": score.unit,
    }


def report(
    name: Campaign,
    to: Annotated[
        Path | None, typer.Option("--to", "-o", metavar="FILE", help="Default: NAME-report.html.")
    ] = None,
    storage: Storage = None,
) -> None:
    """Write a campaign's page. One HTML file that works offline."""
    import re

    from search.report.page import render

    path = to or Path(re.sub(r"[^\w.-]", "_", name) + "-report.html")
    with reading(storage) as store:
        page = render(store, name)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise PrimevoError(f"--to {path}: cannot be written ({error.strerror})") from None
    print(path)


def _wanted(store: Store, name: str, ids: list[int] | None) -> list[int]:
    """The first seed program, then the candidates that were named, or the best one; each once.
    A NotFoundError where one does not exist."""
    from search.campaign import queries

    chosen = ids or [int(row["id"] or 0) for row in queries.top(store, name, 1)]
    wanted = list(dict.fromkeys([1, *chosen]))
    for id in wanted:
        queries.candidate(store, name, id)
    return wanted


def _say_missing(name: str, ids: list[int]) -> None:
    for id in ids:
        print(f"candidate {id} of {name} has no scored point", file=sys.stderr)


def _plot(curves: list[Curve], axis: Literal["steps", "tokens", "seconds"], training: bool) -> None:
    """On a terminal in colour; ASCII elsewhere. COLUMNS and LINES overrule the terminal's size."""
    from shutil import get_terminal_size

    from search.cli.output import stdout
    from search.report.queries import training_points
    from search.report.terminal import draw

    columns, rows = get_terminal_size((80, 24))
    series: dict[str, Sequence[Point]] = {}
    for label, each in zip(_labels(curves), curves, strict=True):
        series[label] = each.points
        if training and each.training:
            series[f"{label}, training"] = training_points(each)
    plain = not stdout().is_terminal
    print(draw(series, axis, columns, min(rows, 40), plain))


def _labels(curves: Sequence[Curve]) -> Iterator[str]:
    """Each curve's name; final runs are numbered by candidate."""
    finals: Counter[int] = Counter()
    for each in curves:
        label = f"seed program {each.id}" if each.id == 1 else f"candidate {each.id}"
        if each.kind == "final":
            finals[each.id] += 1
            label += f", final run {finals[each.id]}"
        yield label


def _print_points(
    curves: Sequence[Curve], output: Literal["table", "csv", "json"], final: bool, training: bool
) -> None:
    from search.cli.output import print_records

    records = [
        {"id": each.id, **({"kind": each.kind, "seed": each.seed} if final else {}), **point}
        for each in curves
        for point in _points(each, training)
    ]
    first, *rest = (*_CURVE_COLUMNS, "train_loss") if training else _CURVE_COLUMNS
    columns = (first, "kind", "seed", *rest) if final else (first, *rest)
    print_records(records, columns, output)


def _points(curve: Curve, training: bool) -> list[dict[str, Any]]:
    """The scored points, with the losses of training between and beside them if those are asked
    for."""
    from search.report.queries import training_points

    scored = {point.steps: point._asdict() for point in curve.points}
    if not training:
        return list(scored.values())
    trained = {point.steps: point for point in training_points(curve)}
    return [
        scored.get(at, {**trained[at]._asdict(), "val_loss": None} if at in trained else {})
        | {"train_loss": trained[at].val_loss if at in trained else None}
        for at in sorted({*scored, *trained})
    ]
