"""What each page shows, from the database, by the names that its template uses."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment

from primitives.errors import ProgramError
from primitives.language.text import parse
from search.campaign import queries as campaign_queries
from search.campaign.queries import Record
from search.campaign.size import size_of
from search.config.plugins import stored_config
from search.config.schema import CampaignConfig
from search.errors import UsageError
from search.report import ancestry, curvecharts, data, difference, drawing, page, queries, view
from search.report.sections import Chart
from search.storage.store import Store
from search.ui import recent
from workers.spec.metrics import METRICS

_TEMPLATES = Path(__file__).parent / "templates"


@cache
def _environment() -> Environment:
    made = page.environment(_TEMPLATES, page.TEMPLATES)
    made.filters["moment"] = _moment
    made.filters["clock"] = _clock
    made.filters["duration"] = _duration
    made.filters["campaign_url"] = campaign_url
    return made


def fill(template: str, **context: object) -> str:
    return _environment().get_template(template).render(themes=page.themes(), **context)


def campaign_url(name: str) -> str:
    return f"/campaigns/{quote(name, safe='')}"


def candidate_url(name: str, id: int) -> str:
    return f"{campaign_url(name)}/candidates/{id}"


def campaigns(store: Store, place: str) -> str:
    """The list of campaigns; `place` is the database as messages call it."""
    return fill("campaigns.html", lines=campaign_queries.campaigns(store), place=place)


def campaign(store: Store, name: str) -> str:
    """The report of a campaign, with what it does at the moment."""
    seen = view.read(store, name)
    return fill(
        "campaign.html",
        **page.content(store, seen),
        link=lambda id: candidate_url(name, id),
        summary=seen.summary,
        waiting=recent.waiting(store, name),
        history=recent.history(store, name),
        last=recent.last(store, name),
    )


def candidate(store: Store, name: str, id: int) -> str:
    """All that is known of a candidate; a NotFoundError where there is none of that number."""
    config = stored_config(store.campaign(name).config, name)  # its plug-ins are loaded
    record = campaign_queries.candidate(store, name, id)
    above = [int(row["id"] or 0) for row in campaign_queries.lineage(store, name, id)]
    runs = {run.id: run for run in queries.runs(store, name, [1, *above])}
    quality = data.quality(runs.values())
    parent = int(record["parent_id"]) if record["parent_id"] is not None else None
    texts = queries.programs(store, name, [1, *above])
    live = {each: ancestry.live_text(text) for each, text in texts.items()}
    program = live[id]
    root = above[0] if above[0] != id else 1
    return fill(
        "candidate.html",
        name=name, id=id, record=record, quality=quality, parent=parent,
        link=lambda other: candidate_url(name, other),
        tiles=_tiles(record, runs, quality),
        metrics=_metrics(record),
        size=_size(texts[id], config),
        runs=recent.trained(store, name, id),
        relatives=recent.relatives(store, name, id),
        history=recent.history(store, name, id),
        last=recent.last(store, name),
        charts=_charts(store, name, id, parent, quality),
        program=program,
        genome=texts[id] if texts[id].strip() != program.strip() else None,
        picture=drawing.picture(texts[id], texts.get(parent or 0)),
        from_seed=root != parent and root != id and drawing.picture(texts[id], texts[root]),
        from_parent=parent and difference.difference(live[parent], program),
        beside=None if root == id else ancestry.beside(root, live[root], program),
        lineage=ancestry.steps(store, name, id, runs, quality),
    )  # fmt: skip


def asset(name: str) -> str:
    """The text of a script or style of this folder."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def failure(title: str, text: str) -> str:
    """A page that says why there is no other one."""
    return fill("failure.html", title=title, text=text)


def _size(text: str, config: CampaignConfig) -> Mapping[str, int | str]:
    """The static cost; nothing for a text that is no program."""
    try:
        return size_of(parse(text), config.task)
    except (ProgramError, UsageError):
        return {}


def _tiles(
    record: Record, runs: Mapping[int, queries.Run], quality: data.Quality
) -> list[tuple[str, str]]:
    """The figures at the top of a candidate's page."""
    own, seed = runs.get(int(record["id"] or 0)), runs.get(1)
    tiles = [("outcome", str(record["outcome"] or "training").replace("_", " "))]
    if own is None:
        return tiles
    if own.fitness is not None:
        tiles.append((quality.unit, page.number(quality.of(own.fitness))))
    for title, other in (
        ("gain over the parent", runs.get(own.parent_id or 0)),
        ("gain over the seed", seed),
    ):
        gain = data.gain_over(other, own)
        if gain is not None and other is not own:
            tiles.append((title, f"{quality.factor * gain:+.4f}"))
    tiles.append(("hurdles passed", str(own.hurdles_passed)))
    return tiles


def _metrics(record: Record) -> list[tuple[str, str, str]]:
    """Name, value and unit of what was measured."""
    return [
        (name, _shown(record[name]), row.unit)
        for name, row in METRICS.items()
        if row.where != "test" and record.get(name) is not None
    ]


def _shown(value: int | float | str | None) -> str:
    return page.number(value) if isinstance(value, int | float) else str(value)


def _charts(
    store: Store, name: str, id: int, parent: int | None, quality: data.Quality
) -> list[Chart]:
    """The curves of the candidate beside those of its parent and of the seed program."""
    ids = list(dict.fromkeys(each for each in (id, parent, 1) if each is not None))
    curves = queries.curves(store, name, ids) + queries.curves(store, name, [id], ("final",))
    if not any(curve.id == id for curve in curves):
        return []
    names = {each: f"candidate {each}" for each in ids}
    names |= {parent: f"parent {parent}"} if parent is not None else {}
    names |= {1: "seed program 1"}
    figure = curvecharts.curves(curves, quality, names)
    return [Chart("curves", "Score along training", curvecharts.CAPTION, figure)]


def _moment(at: float | None) -> str:
    """2026-11-26 09:47:30, in UTC."""
    return "-" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")


def _duration(seconds: float | None) -> str:
    """1:02:03 or 2:03."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
