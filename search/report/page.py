"""A campaign as one HTML page that needs nothing from outside: Plotly's script is inside it.

Whatever comes from the database is escaped by the template, by `charts.plain` or as JSON. The
page's policy lets its own two scripts run, by their hashes, and forbids every request.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from math import isinf
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from search.campaign.finals import titles
from search.report import charts
from search.report.ancestry import beside, lineage
from search.report.sections import sections
from search.report.verdict import Interval
from search.report.view import View, read
from search.storage.store import Store

_HERE = Path(__file__).parent / "templates"
_TOP = 10


def render(store: Store, name: str) -> str:
    """The page of a campaign; a NotFoundError where there is none of that name."""
    view = read(store, name)
    return _fill(
        name=name,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        quality=view.quality,
        found=view.found,
        tested=titles(view.summary.final),
        tiles=_tiles(view),
        top=view.top[:_TOP],
        sections=sections(view),
        mutations=view.mutations,
        lineage=lineage(store, view),
        beside=beside(store, view),
        routed=view.routed[:_TOP],
        refused=sorted(view.summary.progress.rejected.items(), key=lambda item: -item[1]),
    )


def _tiles(view: View) -> list[tuple[str, str]]:
    """The figures at the top of the page."""
    now, line, quality = view.summary.progress, view.summary.line, view.quality
    saved = now.saved_by_duplicates + now.saved_by_hurdles
    full = now.spent + saved
    tiles = [
        ("state", line.state),
        ("candidates", f"{now.recorded - now.pending:,} of {now.candidates:,}"),
        ("trained", f"{now.trained:,}"),
        ("duplicates", f"{now.duplicates:,}"),
        ("refused", f"{sum(now.rejected.values()):,}"),
        ("budget saved", f"{saved / full:.0%}" if full else "-"),
    ]
    if now.in_full is not None:
        real, meant = now.in_full
        tiles.append(("trained in full", f"{real:.1%} ({meant:.1%} meant)"))
    for title, score in (("best score", now.best), ("seed program", now.seed)):
        if score is not None:
            tiles.append((title, f"{quality.of(score.fitness):.4f}"))
    return tiles


def _fill(**context: object) -> str:
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["number"] = number
    environment.filters["interval"] = interval
    environment.filters["signed"] = lambda value: "-" if value is None else f"{value:+.4f}"
    scripts = [get_plotlyjs(), (_HERE / "page.js").read_text(encoding="utf-8")]
    themes = {name: charts.theme(name == "dark") for name in ("light", "dark")}
    return environment.get_template("page.html").render(
        **context,
        scripts=[Markup(script) for script in scripts],
        hashes=[_hash(script) for script in scripts],
        style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        themes=htmlsafe_json_dumps(themes, dumps=_themes_json),
    )


def _themes_json(themes: Mapping[str, Any]) -> str:
    import json

    return json.dumps({name: theme.to_plotly_json() for name, theme in themes.items()})


def _hash(script: str) -> str:
    return f"sha256-{b64encode(sha256(script.encode()).digest()).decode()}"


def number(value: float | None) -> str:
    """A figure as the page's tables show it: four decimals, thousands apart, '-' for none."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def interval(value: Interval | None) -> str:
    """3.2512 (3.2099 to 3.2925); the centre alone for a single run."""
    if value is None:
        return "-"
    if isinf(value.high):
        return f"{value.centre:.4f}"
    return f"{value.centre:.4f} ({value.low:.4f} to {value.high:.4f})"
