"""The charts of a report, by section of the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import plotly.graph_objects as go
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from search.report import charts, curvecharts, data, expertcharts
from search.report.queries import Run
from search.report.view import ROUTED, View


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure on the page: its element's name, what it shows, how to read it."""

    name: str
    title: str
    caption: str
    figure: go.Figure

    @property
    def json(self) -> Markup:
        """The figure's data and layout, safe inside a script element."""
        return htmlsafe_json_dumps(self.figure, dumps=lambda figure: figure.to_json())


def _progress(view: View) -> list[Chart]:
    if not view.runs:
        return []
    caption = (
        "One point a candidate. A candidate that a hurdle stopped trained less than the others, so "
        "its score is higher for that reason alone. Those without a score are below, under "
        "Outcomes."
    )
    every = data.stride(len(view.runs), charts.POINTS)
    if every > 1:
        caption += f" One in {every} is drawn, besides those that were the best when they came."
    seed = view.by_id.get(1)
    figure = charts.progress(view.runs, view.quality, view.hurdles, view.kind_of, seed)
    return [Chart("progress", "Every candidate and the best so far", caption, figure)]


def _finals(view: View) -> list[Chart]:
    found = view.found
    scored = [each for each in found.finalists if each.scores]
    if not scored:
        return []
    rows, scores = [each.row for each in scored], {each.row.id: each.scores for each in scored}
    caption = "Runs with fresh seeds. Lower is better; a bar is the 95% interval of the mean."
    figure = charts.finals(rows, scores, found.unit)
    return [Chart("finals", "Final scores", caption, figure)]


def _costs(view: View) -> list[Chart]:
    marked = {1: "seed program"}
    if view.found.chosen is not None:
        marked[view.found.chosen] = f"candidate {view.found.chosen}"
    made = []
    for name, title, label, cost in (
        ("step-time", "Against step time", "milliseconds a step", _step_time),
        ("parameters", "Against parameters", "parameters", lambda run: run.params),
        ("flops", "Against FLOPs", "forward FLOPs per token", lambda run: run.flops_per_token),
    ):
        if any(cost(run) is not None for run in view.runs):
            figure = charts.trade(view.runs, view.quality, view.kind_of, cost, label, marked)
            made.append(Chart(name, title, "", figure))
    return made


def _step_time(run: Run) -> float | None:
    return None if run.step_time_s is None else 1000 * run.step_time_s


def _endings(view: View) -> list[Chart]:
    if not view.runs:
        return []
    pieces = data.bins(view.runs, view.kind_of)
    made = [
        Chart(
            "outcomes", "How candidates ended", "A duplicate costs nothing: it takes over the "
            f"outcome of the earlier candidate with the same program.{_hurdles(view)}",
            charts.outcomes(pieces),
        ),
        Chart(
            "budget", "Budget spent and saved", "Against training every candidate in full.",
            charts.savings(data.spending(view.runs, view.budget), view.budget.unit),
        ),
    ]  # fmt: skip
    if any(each.refusals for each in pieces):
        caption = "Children that were turned away before training, by reason."
        made.insert(1, Chart("refusals", "Refusals", caption, charts.refusals(pieces)))
    return made


def _hurdles(view: View) -> str:
    """How many went on at each hurdle, and how many were meant to."""
    now = view.summary.progress
    if not now.reached:
        return ""
    counts = zip(now.went_on, now.reached, strict=True)
    told = ", ".join(f"{on} of {there}" for on, there in counts)
    return f" At the hurdles {told} children went on; {now.meant:.0%} are meant to at each."


def _mutations(view: View) -> list[Chart]:
    rows = [row for row in view.mutations if row.gain is not None]
    if not rows:
        return []
    caption = (
        "How far children are under their parent at the same point of training, on average. The "
        "bars are 95% intervals; one that crosses zero may be chance."
    )
    return [Chart("gains", "Gain by mutation", caption, charts.mutations(rows, view.quality))]


def _curves(view: View) -> list[Chart]:
    if not view.curves:
        return []
    ids = dict.fromkeys(curve.id for curve in view.curves)
    names = {id: "seed program" if id == 1 else f"candidate {id}" for id in ids}
    caption = curvecharts.CAPTION
    figure = curvecharts.curves(view.curves, view.quality, names)
    return [Chart("curves", "Training curves", caption, figure)]


def _experts(view: View) -> list[Chart]:
    made = []
    if view.routed:
        caption = f"Of the best {ROUTED} candidates, those with a routed call."
        figure = charts.experts(view.routed, view.quality)
        made.append(Chart("experts", "Use of experts", caption, figure))
    if view.experts is not None:
        title = f"The experts of candidate {view.experts.id}"
        caption = (
            "A final run on validation text. Each cell names the tokens that an expert gets most "
            "often, and those that it gets more often than by chance. Agreement says how far "
            "a call's choices follow from those of the call before: 0 by chance, 1 wholly."
        )
        made.append(Chart("loads", title, caption, expertcharts.loads(view.experts.calls)))
    return made


SECTIONS: dict[str, Callable[[View], list[Chart]]] = {
    "finals": _finals,
    "progress": _progress,
    "costs": _costs,
    "endings": _endings,
    "mutations": _mutations,
    "curves": _curves,
    "experts": _experts,
}


def sections(view: View) -> dict[str, list[Chart]]:
    """The charts of each section; none where it has no data."""
    return {name: build(view) for name, build in SECTIONS.items()}
