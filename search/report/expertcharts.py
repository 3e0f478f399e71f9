"""The loads of routed calls as a figure."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from search.campaign.experts import Call, rows
from search.report.charts import BLUE, plain

_ROW = 34
"""Pixels of a routed call."""


def loads(calls: Sequence[Call]) -> go.Figure:
    """A row for each routed call, a cell for each of its experts, the fullest first: its load over
    an even one. Typical tokens stand in the label of a cell."""
    most = max((len(call["fullest"]) for call in calls), default=0)
    names = [_named(place, call) for place, call in enumerate(calls, 1)]
    even = [
        [each["load"] * call["experts"] for each in call["fullest"]] + [None] * (
            most - len(call["fullest"])
        )
        for call in calls
    ]  # fmt: skip
    labels = [[_label(row) for row in rows(call, most)] for call in calls]
    padded = [each + [""] * (most - len(each)) for each in labels]
    figure = go.Figure(
        go.Heatmap(
            z=even, y=names, text=padded, x=list(range(1, most + 1)), xgap=1, ygap=2,
            colorscale=[[0, "rgba(139,147,161,0.15)"], [1, BLUE]], zmin=0,
            hovertemplate="%{text}<br>%{z:.2f} of an even load<extra></extra>",
            colorbar={"title": {"text": "of an even load"}},
        )
    )  # fmt: skip
    figure.update_layout(
        height=110 + _ROW * len(calls), margin={"l": 50, "r": 12, "t": 12, "b": 40}, template=None
    )
    figure.update_xaxes(title={"text": "experts, the fullest first"})
    return figure.update_yaxes(autorange="reversed")


def _named(place: int, call: Call) -> str:
    agreed = call["agreement"]
    told = "" if agreed is None else f", agreement {agreed:.2f}"
    return f"call {place}, layer {call['layer']}{told}"


def _label(row: dict[str, object]) -> str:
    often, lifted = plain(row["most often"]), plain(row["more than by chance"])
    return f"expert {row['expert']}: {often}<br>more than by chance: {lifted}"
