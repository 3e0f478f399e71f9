"""What an export's card tells of a candidate beside its record."""

from __future__ import annotations

from typing import Any

from search.campaign import queries
from search.report.findings import verdict_on
from search.report.words import changes
from search.storage.store import Store


def told(store: Store, name: str, id: int) -> dict[str, Any]:
    """`changes` since the seed program that it comes from, in words, and the `verdict` on it, None
    where it was no finalist. Nothing for a seed program."""
    seed = int(queries.lineage(store, name, id)[0]["id"] or 0)
    if seed == id:
        return {}
    campaign = store.campaign(name)
    dna, before = (queries.stored_program(store, campaign, each) for each in (id, seed))
    return {
        "seed_program": seed,
        "changes": changes(dna, before),
        "verdict": verdict_on(queries.summary(store, name), id),
    }
