"""Losses along training as a figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import plotly.graph_objects as go

from search.report.charts import COLOURS, framed, plain
from search.report.data import Quality
from search.report.queries import Curve

CAPTION = (
    "Validation scores as they were recorded along training. Final runs are dotted. Thin lines are "
    "losses of training, which are on other text."
)


def curves(found: Iterable[Curve], quality: Quality, names: Mapping[int, str]) -> go.Figure:
    """Validation scores along training: a candidate a colour, its search run solid and its final
    runs dotted. Thin lines are the search runs' losses of training."""
    figure = go.Figure()
    colours = {id: COLOURS[place % len(COLOURS)] for place, id in enumerate(names)}
    final_seen: set[int] = set()
    for curve in found:
        final = curve.kind == "final"
        name = names[curve.id] + (", final runs" if final else "")
        figure.add_trace(
            go.Scatter(
                x=[point.steps for point in curve.points],
                y=[quality.of(point.val_loss) for point in curve.points],
                name=plain(name),
                legendgroup=plain(name),
                showlegend=not (final and curve.id in final_seen),
                mode="lines+markers",
                line={
                    "color": colours[curve.id],
                    "dash": "dot" if final else "solid",
                    "width": 1.5 if final else 2.5,
                },
                marker={"size": 5},
            )
        )
        if final:
            final_seen.add(curve.id)
        elif curve.training:
            figure.add_trace(_training(curve, quality, name, colours[curve.id]))
    return framed(figure, "training steps", quality.unit)


def _training(curve: Curve, quality: Quality, name: str, colour: str) -> go.Scatter:
    """The losses of training of a run; the legend hides and shows them with its scores."""
    return go.Scatter(
        x=[at for at, _ in curve.training],
        y=[quality.of(loss) for _, loss in curve.training],
        name=plain(f"{name}, training"),
        legendgroup=plain(name),
        showlegend=False,
        mode="lines",
        line={"color": colour, "width": 1},
        opacity=0.55,
    )
