"""Training curves for a notebook, drawn by Plotly; with characters where there is no browser."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from search.api.table import frame
from search.report.queries import Curve

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

PLOTLY = "application/vnd.plotly.v1+json"


def bundle(figure: Figure, text: str) -> dict[str, Any]:
    """A figure in the forms that notebooks choose from."""
    return {PLOTLY: json.loads(figure.to_json()), "text/plain": text}


class Curves:
    """Validation losses (nats per token) along training, of one candidate or several. `curves` has
    one for each run; `names` are the candidates' by number."""

    def __init__(self, curves: Iterable[Curve], names: Mapping[int, str]) -> None:
        self.curves, self.names = tuple(curves), dict(names)

    def figure(self) -> Figure:
        """A Plotly figure: search runs solid, final runs dotted."""
        from search.report.curvecharts import curves
        from search.report.data import Quality

        return curves(self.curves, Quality("nats per token", 1.0), self.names)

    def to_pandas(self) -> DataFrame:
        """A row for each scored point: id, kind, seed, steps, tokens, train_seconds, val_loss."""
        return frame(
            {"id": each.id, "kind": each.kind, "seed": each.seed, **point._asdict()}
            for each in self.curves
            for point in each.points
        )

    def __repr__(self) -> str:
        from search.report.terminal import draw

        if not any(each.points for each in self.curves):
            return "no scored point yet"
        series = {
            f"{self.names[each.id]}, {each.kind} {each.seed}": each.points for each in self.curves
        }
        return draw(series, "steps", 80, 24, plain=True)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return bundle(self.figure(), repr(self))
