"""Where the chosen candidate comes from, and how its program differs from the seed program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from search.campaign import queries as campaign_queries
from search.campaign.queries import Record
from search.report import data, difference, queries
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
    """The chosen candidate beside the seed program that it comes from, or beside the first one
    where it is a seed program itself: in two columns, and in one for narrow screens."""

    seed: int
    pairs: Sequence[difference.Pair]
    lines: Sequence[difference.Line]


def lineage(store: Store, view: View) -> list[Step]:
    """The steps from a seed program to the chosen candidate; none where nothing was chosen."""
    chosen, name, by_id = view.found.chosen, view.name, view.by_id
    if chosen is None:
        return []
    records = campaign_queries.lineage(store, name, chosen)
    ids = [int(record["id"] or 0) for record in records]
    texts = queries.programs(store, name, ids)
    steps = [Step(records[0], None, None)]
    for record, parent, id in zip(records[1:], ids, ids[1:], strict=False):
        gain = data.gain_over(by_id.get(parent), by_id[id]) if id in by_id else None
        change = difference.difference(texts[parent], texts[id])
        steps.append(Step(record, view.quality.of(gain), change))
    return steps


def beside(store: Store, view: View) -> Beside | None:
    """None where nothing was chosen."""
    chosen, name = view.found.chosen, view.name
    if chosen is None:
        return None
    root = int(campaign_queries.lineage(store, name, chosen)[0]["id"] or 0)
    first = root if root != chosen else 1
    texts = queries.programs(store, name, [first, chosen])
    before, after = texts[first], texts[chosen]
    whole = len(before.splitlines()) + len(after.splitlines())
    return Beside(
        first,
        tuple(difference.side_by_side(before, after)),
        tuple(line for line in difference.difference(before, after, whole) if line.sign != "@"),
    )
