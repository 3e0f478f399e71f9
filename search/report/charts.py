"""Plotly figures of a campaign. They have no theme: the page gives each the reader's.

Plotly reads a little HTML in its texts, so whatever comes from the database goes through `plain`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from html import escape
from textwrap import shorten

import plotly.graph_objects as go

from search.campaign.progress import FinalRow
from search.campaign.queries import Record
from search.report import data
from search.report.data import Bin, KindOf, MutationRow, Quality, Spending
from search.report.queries import Run
from search.report.verdict import mean_interval

BLUE, ORANGE, GREY, GREEN = "#3b82d6", "#e0742f", "#8b93a1", "#2f9e6e"
RED, VIOLET, YELLOW, TEAL = "#d64a4a", "#8b6fd6", "#bf9a1f", "#2aa5a0"
COLOURS = (BLUE, ORANGE, GREEN, VIOLET, YELLOW, TEAL, RED, GREY)

_KIND_COLOURS: dict[str, str] = {
    "trained in full": BLUE,
    "stopped at a hurdle": ORANGE,
    "paused at a hurdle": YELLOW,
    "duplicate": GREY,
}

POINTS = 4000
"""Candidates that one chart draws at most, besides those that it must show."""


def plain(text: object) -> str:
    """A text that Plotly shows as it is."""
    return escape(str(text), quote=False)


def theme(dark: bool) -> go.layout.Template:
    """Colours of text, lines and background; the background is the page's."""
    text, line = ("#d6dae1", "#3a404b") if dark else ("#2b303a", "#dfe3ea")
    axis = {"gridcolor": line, "linecolor": line, "zerolinecolor": line, "automargin": True}
    clear = "rgba(0,0,0,0)"
    label = {"bgcolor": "#262b34" if dark else "#ffffff", "font": {"color": text}}
    return go.layout.Template(
        layout={
            "font": {"color": text, "family": "system-ui, sans-serif", "size": 13},
            "paper_bgcolor": clear,
            "plot_bgcolor": clear,
            "colorway": COLOURS,
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": label,
            "modebar": {"bgcolor": clear, "color": line, "activecolor": text},
        }
    )


def progress(
    runs: Sequence[Run], quality: Quality, hurdles: int, kind_of: KindOf, seed: Run | None
) -> go.Figure:
    """Every candidate in the order of its ending, the best so far, the seed program and the
    hurdles' thresholds."""
    best = data.best_so_far(runs)
    figure = go.Figure()
    shown = data.thin(runs, POINTS, {run.id for run in best})
    _add_kinds(figure, shown, kind_of, lambda run: run.sequence, quality)
    for place in range(hurdles):
        bars = data.hurdle_bars(runs, place)
        figure.add_trace(
            go.Scatter(
                x=[sequence for sequence, _ in bars],
                y=[quality.of(bar) for _, bar in bars],
                name=f"threshold of hurdle {place + 1}",
                mode="lines",
                line={"shape": "hv", "width": 1.5, "color": ORANGE, "dash": _DASHES[place % 4]},
            )
        )
    last = runs[-1].sequence if runs else 0
    steps = [(run.sequence, quality.of(run.fitness), run.id) for run in best]
    if steps:
        steps.append((last, steps[-1][1], steps[-1][2]))
    figure.add_trace(
        go.Scatter(
            x=[step[0] for step in steps],
            y=[step[1] for step in steps],
            text=[f"candidate {step[2]}" for step in steps],
            name="best so far",
            mode="lines",
            line={"shape": "hv", "width": 3, "color": GREEN},
        )
    )
    if seed is not None and seed.fitness is not None:
        _line_across(figure, quality.of(seed.fitness), 1, last)
    scores = [score for run in runs if (score := quality.of(run.fitness)) is not None]
    return framed(figure, "results, in the order they came", quality.unit, data.usual(scores))


def trade(
    runs: Sequence[Run],
    quality: Quality,
    kind_of: KindOf,
    cost: Callable[[Run], float | None],
    label: str,
    marked: Mapping[int, str],
) -> go.Figure:
    """The score against a cost, both better when lower, with the Pareto front. `marked` names
    candidates that stand out."""
    shown = data.costed(runs, cost)
    places = data.pareto([(cost(run) or 0.0, run.fitness or 0.0) for run in shown])
    front = [shown[place] for place in places]
    keep = {run.id for run in front} | set(marked)
    figure = go.Figure()
    _add_kinds(figure, data.thin(shown, POINTS, keep), kind_of, cost, quality)
    figure.add_trace(
        go.Scatter(
            x=[cost(run) for run in front],
            y=[quality.of(run.fitness) for run in front],
            text=[_hover(run) for run in front],
            name="Pareto front",
            mode="lines+markers",
            line={"shape": "hv", "width": 2, "color": GREEN},
            marker={"size": 8},
        )
    )
    for run in shown:
        if run.id in marked:
            figure.add_trace(
                go.Scatter(
                    x=[cost(run)],
                    y=[quality.of(run.fitness)],
                    text=[_hover(run)],
                    name=plain(marked[run.id]),
                    mode="markers",
                    marker={"size": 15, "symbol": "star", "color": RED if run.id == 1 else VIOLET},
                )
            )
    full = [run for run in shown if kind_of(run) == "trained in full"] or shown
    scores = [score for run in full if (score := quality.of(run.fitness)) is not None]
    framed(figure, label, quality.unit, data.usual(scores))
    limits = data.usual([value for run in shown if (value := cost(run)) is not None], 0.99)
    return figure.update_xaxes(range=limits)


def outcomes(bins: Sequence[Bin]) -> go.Figure:
    """How candidates ended, over the campaign."""
    names = sorted({name for each in bins for name in each.outcomes}, key=_ending_order)
    return _stacked(bins, names, lambda each: each.outcomes, "candidates")


def refusals(bins: Sequence[Bin]) -> go.Figure:
    """Why children were refused before training, over the campaign."""
    total = sum((each.refusals for each in bins), start=type(bins[0].refusals)())
    names = data.largest(total, 5)
    figure = _stacked(bins, names, lambda each: each.refusals, "children refused")
    rest = [sum(each.refusals.values()) - sum(each.refusals[n] for n in names) for each in bins]
    if any(rest):
        figure.add_trace(_bars(bins, rest, "other reasons", GREY))
    return figure


def savings(sums: Sequence[Spending], unit: str) -> go.Figure:
    """Budget that training took, and what duplicates and hurdles saved: running sums."""
    shown = sums[:: max(1, len(sums) // 500)]
    if sums and shown[-1] is not sums[-1]:
        shown = [*shown, sums[-1]]
    figure = go.Figure()
    for name, colour, values in (
        ("spent on training", BLUE, [each.spent for each in shown]),
        ("saved by hurdles", ORANGE, [each.saved_by_hurdles for each in shown]),
        ("saved by duplicates", GREY, [each.saved_by_duplicates for each in shown]),
    ):
        figure.add_trace(
            go.Scatter(
                x=[each.sequence for each in shown],
                y=values,
                name=name,
                stackgroup="budget",
                mode="lines",
                line={"color": colour, "width": 1},
            )
        )
    return framed(figure, "results, in the order they came", f"{unit}, summed")


def mutations(rows: Sequence[MutationRow], quality: Quality) -> go.Figure:
    """The mean gain over the parent by mutation, with its interval."""
    shown = [row for row in reversed(rows) if row.gain is not None]
    gains = [row.gain for row in shown if row.gain is not None]
    centres = [gain.centre * quality.factor for gain in gains]
    # An interval of one child is infinite; Plotly draws no bar for None.
    arms = [
        (gain.high - gain.centre) * quality.factor if gain.high < float("inf") else None
        for gain in gains
    ]
    figure = go.Figure(
        go.Bar(
            x=centres,
            y=[plain(row.mutation) for row in shown],
            text=[f"{row.better} of {row.compared} better" for row in shown],
            textposition="none",
            hovertemplate="%{y}: %{x:.4f}<br>%{text}<extra></extra>",
            orientation="h",
            marker_color=[GREEN if centre > 0 else ORANGE for centre in centres],
            error_x={"type": "data", "array": arms, "color": GREY, "thickness": 1.5},
        )
    )
    framed(figure, f"mean gain, {quality.unit}", "")
    # A mutation with few children has an interval that would squeeze every bar: it runs off.
    low, high = min([0.0, *centres]), max([0.0, *centres])
    room = 0.5 * (high - low) or 1.0
    figure.update_xaxes(range=(low - room, high + room))
    return figure.update_yaxes(type="category").update_layout(height=120 + 36 * len(shown))


def finals(rows: Sequence[FinalRow], scores: Mapping[int, Sequence[float]], unit: str) -> go.Figure:
    """Every fresh run, with each program's mean and the 95% interval of its mean."""
    figure = go.Figure()
    names = {row.id: _final_name(row) for row in rows}
    figure.add_trace(
        go.Scatter(
            x=[score for row in rows for score in scores[row.id]],
            y=[names[row.id] for row in rows for _ in scores[row.id]],
            name="one run",
            mode="markers",
            marker={"color": GREY, "size": 8, "symbol": "circle-open"},
        )
    )
    means = [(row, mean) for row in rows if (mean := mean_interval(scores[row.id]))]
    figure.add_trace(
        go.Scatter(
            x=[mean.centre for _, mean in means],
            y=[names[row.id] for row, _ in means],
            name="mean and 95% interval",
            mode="markers",
            marker={"color": [RED if row.is_seed else BLUE for row, _ in means], "size": 11},
            error_x={
                "type": "data",
                "array": [m.high - m.centre if m.high < float("inf") else None for _, m in means],
                "color": GREY,
            },
        )
    )
    framed(figure, f"{unit}, test split", "")
    return figure.update_yaxes(type="category", autorange="reversed").update_layout(
        height=150 + 44 * len(rows)
    )


def experts(records: Sequence[Record], quality: Quality) -> go.Figure:
    """How evenly candidates with routed layers use their experts, against their score."""
    figure = go.Figure()
    for name, key, colour in (
        ("share of experts used", "experts_used", BLUE),
        ("share of choices dropped", "experts_dropped", ORANGE),
    ):
        shown = [row for row in records if row.get(key) is not None]
        figure.add_trace(
            go.Scatter(
                x=[row[key] for row in shown],
                y=[quality.factor * float(row["val_loss"] or 0) for row in shown],
                text=[f"candidate {row['id']}" for row in shown],
                name=name,
                mode="markers",
                marker={"color": colour, "size": 9, "opacity": 0.8},
            )
        )
    return framed(figure, "share", quality.unit).update_xaxes(range=(-0.03, 1.03))


_DASHES = ("dash", "dot", "dashdot", "longdash")
_ENDING_COLOURS: dict[str, str] = {
    **_KIND_COLOURS,
    "diverged": RED,
    "out of memory": VIOLET,
    "timed out": YELLOW,
    "too slow": "#7ea63b",
    "invalid": TEAL,
    "crashed": "#7a3b2e",
}


def _ending_order(name: str) -> tuple[int, str]:
    known = [*_KIND_COLOURS]
    return (known.index(name) if name in known else len(known), name)


def _add_kinds(
    figure: go.Figure,
    runs: Sequence[Run],
    kind_of: KindOf,
    x: Callable[[Run], float | None],
    quality: Quality,
) -> None:
    """A point for each run that has a score, in the colour of its kind."""
    size, opacity = (6, 0.7) if len(runs) < 1000 else (4, 0.5)
    for name, colour in _KIND_COLOURS.items():
        shown = [run for run in runs if kind_of(run) == name]
        if shown:
            figure.add_trace(
                go.Scatter(
                    x=[x(run) for run in shown],
                    y=[quality.of(run.fitness) for run in shown],
                    text=[_hover(run) for run in shown],
                    name=name,
                    mode="markers",
                    marker={"color": colour, "size": size, "opacity": opacity},
                )
            )


def _hover(run: Run) -> str:
    return f"candidate {run.id}, {plain(run.mutation)}"


def _line_across(figure: go.Figure, height: float | None, start: int, end: int) -> None:
    figure.add_trace(
        go.Scatter(
            x=[start, end],
            y=[height, height],
            name="seed program",
            mode="lines",
            line={"color": RED, "width": 1.5, "dash": "dash"},
        )
    )


def _bars(bins: Sequence[Bin], heights: Sequence[int], name: str, colour: str) -> go.Bar:
    return go.Bar(
        x=[(each.first + each.last) / 2 for each in bins],
        y=heights,
        width=[0.92 * (each.last - each.first + 1) for each in bins],
        text=[f"{each.first} to {each.last}" for each in bins],
        textposition="none",
        hovertemplate="%{text}: %{y}",
        name=plain(shorten(name, 40, placeholder=" ...")),
        marker_color=colour,
    )


def _stacked(
    bins: Sequence[Bin],
    names: Collection[str],
    counts: Callable[[Bin], Mapping[str, int]],
    label: str,
) -> go.Figure:
    figure = go.Figure()
    for place, name in enumerate(names):
        colour = _ENDING_COLOURS.get(name, COLOURS[place % len(COLOURS)])
        heights = [counts(each).get(name, 0) for each in bins]
        figure.add_trace(_bars(bins, heights, name, colour))
    figure.update_layout(barmode="stack")
    return framed(figure, "results, in the order they came", label)


def _final_name(row: FinalRow) -> str:
    return f"seed program ({row.id})" if row.is_seed else f"candidate {row.id}"


def framed(
    figure: go.Figure, x: str, y: str, limits: tuple[float, float] | None = None
) -> go.Figure:
    figure.update_layout(
        height=420,
        margin={"l": 50, "r": 12, "t": 12, "b": 40},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        hovermode="closest",
        template=None,
    )
    figure.update_xaxes(title={"text": x})
    return figure.update_yaxes(title={"text": y}, range=limits)
