"""Where a candidate comes from, and how its program differs from the seed program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from primitives.errors import ProgramError
from primitives.graph.live import live_program
from primitives.language.text import parse, render
from search.campaign import queries as campaign_queries
from search.campaign.queries import Record
from search.report import data, difference, queries, words
from search.report.data import Quality
from search.report.queries import Run
from search.report.view import View
from search.storage.store import Store


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a lineage: the candidate, its gain over the parent, what changed."""

    record: Record
    gain: float | None
    change: Sequence[difference.Line] | None


@dataclass(frozen=True, slots=True)
class Beside:
    """A candidate beside the seed program that it comes from, or beside the first one where it is a
    seed program itself: both texts, what changed in words, the texts' lines in two columns, and in
    one for narrow screens."""

    seed: int
    before: str
    after: str
    changes: Sequence[str]
    pairs: Sequence[difference.Pair]
    lines: Sequence[difference.Line]


def lineage(store: Store, view: View, id: int) -> list[Step]:
    """The steps from a seed program to the candidate."""
    return steps(store, view.name, id, view.by_id, view.quality)


def steps(
    store: Store, name: str, id: int, runs: Mapping[int, Run], quality: Quality
) -> list[Step]:
    """The same from the runs of the candidate and of its ancestors by number; more do no harm."""
    records = campaign_queries.lineage(store, name, id)
    ids = [int(record["id"] or 0) for record in records]
    texts = queries.programs(store, name, ids)
    made = [Step(records[0], None, None)]
    for record, parent, own in zip(records[1:], ids, ids[1:], strict=False):
        gain = data.gain_over(runs.get(parent), runs[own]) if own in runs else None
        change = difference.difference(texts[parent], texts[own])
        made.append(Step(record, quality.of(gain), change))
    return made


def live_text(text: str) -> str:
    """What of a program runs; a text that is no program as it is."""
    try:
        return render(live_program(parse(text)))
    except ProgramError:
        return text


def beside_seed(store: Store, name: str, id: int) -> Beside:
    root = int(campaign_queries.lineage(store, name, id)[0]["id"] or 0)
    first = root if root != id else 1
    texts = queries.programs(store, name, [first, id])
    return beside(first, live_text(texts[first]), live_text(texts[id]))


def beside(seed: int, before: str, after: str) -> Beside:
    """The program `after` beside that of the seed program, `before`; both as they run."""
    whole = len(before.splitlines()) + len(after.splitlines())
    return Beside(
        seed,
        before,
        after,
        words.changes_of_texts(after, before),
        tuple(difference.side_by_side(before, after)),
        tuple(line for line in difference.difference(before, after, whole) if line.sign != "@"),
    )
