"""A study over a grid as charts: loss against each cost, with frontiers and fitted laws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from search.errors import PrimevoError
from search.report.charts import COLOURS, plain, theme
from search.report.terminal import scatter
from search.study.frontier import frontier
from search.study.grid import Cell
from search.study.law import Law
from search.study.scaling import Scaled, training_flops

Cost = Callable[[Cell], float | None]


def _metric(name: str) -> Cost:
    return lambda cell: cell.of(name)


_AXES: tuple[tuple[str, str, Cost], ...] = (
    ("training_flops", "FLOPs of training", training_flops),
    ("flops_per_token", "active FLOPs a token", _metric("flops_per_token")),
    ("params", "parameters", _metric("params")),
    ("step_time_s", "seconds a step", _metric("step_time_s")),
)


def figure(found: Scaled) -> go.Figure:
    """Four charts. Over FLOPs of training all cells stand; over other costs those of the largest
    amount. Lines join a program's frontier; a dotted one is its fitted law."""
    made = make_subplots(rows=2, cols=2, vertical_spacing=0.14, horizontal_spacing=0.1)
    for number, (name, title, cost) in enumerate(_AXES):
        row, column = 1 + number // 2, 1 + number % 2
        for place, program in enumerate(found.programs):
            colour = COLOURS[place % len(COLOURS)]
            for trace in _traces(found, program, name, cost, colour, legend=number == 0):
                made.add_trace(trace, row=row, col=column)
        made.update_xaxes(title_text=title, type="log", row=row, col=column)
        made.update_yaxes(title_text="bits a byte", type="log", row=row, col=column)
    return made.update_layout(height=820, template=theme(dark=False), legend={"orientation": "h"})


def write(found: Scaled, path: Path) -> None:
    """The figure as one HTML file that works offline."""
    page = figure(found).to_html(include_plotlyjs=True, full_html=True)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise PrimevoError(f"--plot {path}: cannot be written ({error.strerror})") from None


def draw(found: Scaled, columns: int, rows: int, plain: bool) -> str:
    """Every program's cells over FLOPs of training, in characters."""
    series = {
        name: [
            (x, cell.mean)
            for cell in _cells(found, name)
            if (x := training_flops(cell)) and cell.mean
        ]
        for name in found.programs
    }
    return scatter(series, "bits a byte by FLOPs of training", columns, rows, plain)


def _cells(found: Scaled, program: str, full: bool = False) -> list[Cell]:
    """A program's cells that have a score; `full`: those of the largest amount."""
    amount = found.config.budget.full
    return [
        cell
        for cell in found.cells
        if cell.point.program == program and cell.mean and (not full or cell.amount == amount)
    ]


def _traces(
    found: Scaled, program: str, name: str, cost: Cost, colour: str, legend: bool
) -> Sequence[go.Scatter]:
    whole = name == "training_flops"
    cells = [cell for cell in _cells(found, program, full=not whole) if cost(cell)]
    best = frontier(cells, cost)
    title = plain(program)
    common: dict[str, Any] = {"legendgroup": title, "name": title}
    points = go.Scatter(
        x=[cost(cell) for cell in cells], y=[cell.mean for cell in cells],
        text=[plain(f"{cell.title}, {cell.amount:g}") for cell in cells], mode="markers",
        marker={"color": colour, "size": 7}, showlegend=legend, **common,
    )  # fmt: skip
    line = go.Scatter(
        x=[cost(cell) for cell in best], y=[cell.mean for cell in best], mode="lines",
        line={"color": colour, "width": 1.5}, showlegend=False, hoverinfo="skip", **common,
    )  # fmt: skip
    law = _law(found, program, name)
    return [points, line, *([_curve(law, best, cost, colour, common)] if law and best else [])]


def _law(found: Scaled, program: str, name: str) -> Law | None:
    """The law of a single group: of several, each has a scale of its own."""
    return next(
        (
            each.law
            for each in found.laws
            if (each.program, each.measure.name) == (program, name)
            and each.law is not None
            and len(each.law.scales) == 1
        ),
        None,
    )


def _curve(law: Law, cells: Sequence[Cell], cost: Cost, colour: str, common: Any) -> go.Scatter:
    costs = [x for cell in cells if (x := cost(cell))]
    xs = np.geomspace(min(costs), max(costs), 40)
    group = next(iter(law.scales))
    return go.Scatter(
        x=xs, y=[law.loss(float(x), group) for x in xs], mode="lines", showlegend=False,
        line={"color": colour, "width": 1, "dash": "dot"}, hoverinfo="skip", **common,
    )  # fmt: skip
