"""A comparison as charts: losses along training, and scores with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from search.errors import PrimevoError
from search.report.charts import COLOURS, GREY, plain, theme
from search.study.comparison import Compared, Standing
from search.study.study import completed
from workers.spec.outcome import Measurement, Outcome

_AXES: tuple[tuple[str, Callable[[Outcome, Measurement], float]], ...] = (
    ("training steps", lambda outcome, point: point.steps),
    ("seconds of training", lambda outcome, point: point.train_seconds),
)


def figure(compared: Compared) -> go.Figure:
    """Validation loss against steps and against seconds, a line for each run and a colour for each
    program; below, every run's score with the mean and its 95 % interval."""
    made = make_subplots(
        rows=2, cols=2, specs=[[{}, {}], [{"colspan": 2}, None]], vertical_spacing=0.16,
        row_heights=[0.65, 0.35],
    )  # fmt: skip
    for place, standing in enumerate(compared.standings):
        colour = COLOURS[place % len(COLOURS)]
        for column, (_, x) in enumerate(_AXES, 1):
            for number, (_, outcome) in enumerate(completed(standing.runs)):
                line = _line(standing, outcome, x, colour, legend=column == 1 and number == 0)
                made.add_trace(line, row=1, col=column)
        for trace in _scores(standing, compared.score, colour):
            made.add_trace(trace, row=2, col=1)
    for column, (title, _) in enumerate(_AXES, 1):
        made.update_xaxes(title_text=title, row=1, col=column)
    made.update_yaxes(title_text="validation loss, nats a token", row=1, col=1)
    made.update_xaxes(title_text=f"{compared.score}, {compared.unit}", row=2, col=1)
    made.update_yaxes(autorange="reversed", type="category", row=2, col=1)
    return made.update_layout(height=720, template=theme(dark=False), legend={"orientation": "h"})


def write(compared: Compared, path: Path) -> None:
    """The figure as one HTML file that works offline."""
    page = figure(compared).to_html(include_plotlyjs=True, full_html=True)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise PrimevoError(f"--plot {path}: cannot be written ({error.strerror})") from None


def _line(
    standing: Standing,
    outcome: Outcome,
    x: Callable[[Outcome, Measurement], float],
    colour: str,
    legend: bool,
) -> go.Scatter:
    title = plain(standing.subject.title)
    return go.Scatter(
        x=[x(outcome, point) for point in outcome.curve],
        y=[point.val_loss for point in outcome.curve],
        name=title,
        legendgroup=title,
        showlegend=legend,
        mode="lines+markers",
        line={"color": colour, "width": 1.5},
        marker={"size": 4},
    )


def _scores(standing: Standing, score: str, colour: str) -> Sequence[go.Scatter]:
    """A program's runs, and their mean."""
    title = plain(standing.subject.title)
    values = [getattr(outcome, score) for _, outcome in completed(standing.runs)]
    runs = go.Scatter(
        x=values, y=[title] * len(values), mode="markers", showlegend=False, legendgroup=title,
        marker={"color": GREY, "symbol": "circle-open"},
    )  # fmt: skip
    mean = standing.mean
    if mean is None:
        return [runs]
    arm = mean.high - mean.centre
    bars = {"type": "data", "array": [arm if arm < float("inf") else None], "color": colour}
    point = go.Scatter(
        x=[mean.centre], y=[title], mode="markers", showlegend=False, legendgroup=title,
        marker={"color": colour, "size": 10}, error_x=bars,
    )  # fmt: skip
    return [runs, point]
