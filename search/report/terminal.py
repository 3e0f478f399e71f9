"""Validation-loss curves drawn with characters, by uniplot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from uniplot import plot_to_string

from search.report.queries import Point

Axis = Literal["steps", "tokens", "seconds"]

_SYMBOLS = ["o", "x", "+", "*", "#", "@", "%", "&", "=", "~"]
_FRAME = str.maketrans("┌┐└┘─│", "++++-|")

_MARGIN = 10
"""Columns beside the plot: its frame and the labels of the vertical axis."""

_FURNITURE = 6
"""Rows beside the plot: title, frame, horizontal axis, legend, the prompt."""


def draw(
    series: Mapping[str, Sequence[Point]], axis: Axis, columns: int, rows: int, plain: bool
) -> str:
    """The curves by label in one plot that is at most `columns` wide and `rows` high. `plain` uses
    ASCII alone, a symbol for each curve; otherwise colours and block characters."""
    kept = {label: _places(points, axis) for label, points in series.items()}
    title = f"validation loss (nats per token) by {axis}"
    return _drawn(kept, title, columns, rows, plain, lines=True)


def scatter(
    series: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    columns: int,
    rows: int,
    plain: bool,
) -> str:
    """Points by label, with x logarithmic; otherwise as `draw`."""
    return _drawn(series, title, columns, rows, plain, x_as_log=True)


def _drawn(
    kept: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    columns: int,
    rows: int,
    plain: bool,
    **more: Any,
) -> str:
    form: dict[str, Any] = {"color": True}
    if plain:
        form = {"color": False, "character_set": "ascii", "force_ascii_characters": _SYMBOLS}
    text = plot_to_string(
        xs=[[x for x, _ in points] for points in kept.values()],
        ys=[[y for _, y in points] for points in kept.values()],
        legend_labels=list(kept),
        width=max(columns - _MARGIN, 20),
        line_length_hard_cap=max(columns, 40),
        height=max(rows - _FURNITURE, 5),
        title=title,
        x_gridlines=[],
        y_gridlines=[],
        **form,
        **more,
    )
    lines = [line.rstrip() for line in text.splitlines()]
    return "\n".join(lines).translate(_FRAME if plain else {})


def _places(points: Sequence[Point], axis: Axis) -> list[tuple[float, float]]:
    """Where the points lie; those without a finite number are left out."""
    found = []
    for point in points:
        x = point.train_seconds if axis == "seconds" else getattr(point, axis)
        if x is not None and point.val_loss is not None:
            found.append((float(x), point.val_loss))
    return found
