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

from search.campaign.experts import rows, told
from search.campaign.finals import titles
from search.report import charts, drawing
from search.report.ancestry import beside_seed, lineage
from search.report.sections import sections
from search.report.verdict import Interval
from search.report.view import View, read
from search.storage.store import Store

TEMPLATES = Path(__file__).parent / "templates"
_TOP = 10


def render(store: Store, name: str) -> str:
    """The page of a campaign; a NotFoundError where there is none of that name."""
    scripts = [get_plotlyjs(), asset("page.js")]
    return (
        environment(TEMPLATES)
        .get_template("page.html")
        .render(
            **content(store, read(store, name)),
            written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
            link=None,
            scripts=[Markup(script) for script in scripts],
            hashes=[_hash(script) for script in scripts],
            style=Markup(asset("page.css")),
            themes=themes(),
        )
    )


def content(store: Store, view: View) -> dict[str, Any]:
    """What `page.html` shows of a campaign, by the template's names."""
    chosen = view.found.chosen
    compared = None if chosen is None else beside_seed(store, view.name, chosen)
    picture = compared and drawing.picture(compared.after, compared.before)
    return {
        "name": view.name,
        "quality": view.quality,
        "found": view.found,
        "tested": titles(view.summary.final),
        "tiles": _tiles(view),
        "top": view.top[:_TOP],
        "sections": sections(view),
        "mutations": view.mutations,
        "lineage": [] if chosen is None else lineage(store, view, chosen),
        "beside": compared,
        "picture": picture,
        "routed": view.routed[:_TOP],
        "calls": [
            {"told": told(call), "rows": rows(call, _TOP)}
            for call in (view.experts.calls if view.experts else ())
        ],
        "refused": sorted(view.summary.progress.rejected.items(), key=lambda item: -item[1]),
    }


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
    if now.paused:
        tiles.append(("paused at hurdles", f"{now.paused:,}"))
    for title, score in (("best score", now.best), ("seed program", now.seed)):
        if score is not None:
            tiles.append((title, f"{quality.of(score.fitness):.4f}"))
    return tiles


def environment(*folders: Path) -> Environment:
    """Templates from the folders, the first that has one. What they are given is escaped."""
    made = Environment(
        loader=FileSystemLoader(folders), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters["number"] = number
    made.filters["interval"] = interval
    made.filters["signed"] = lambda value: "-" if value is None else f"{value:+.4f}"
    return made


def asset(name: str) -> str:
    """The text of a script or style beside the templates."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def themes() -> Markup:
    """The charts' themes as JSON that is safe inside a script element."""
    made = {name: charts.theme(name == "dark") for name in ("light", "dark")}
    return htmlsafe_json_dumps(made, dumps=_themes_json)


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
