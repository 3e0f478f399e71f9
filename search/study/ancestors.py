"""A candidate's lineage with its programs, as an explanation needs it."""

from __future__ import annotations

from search.campaign import queries
from search.errors import UsageError
from search.storage.store import Store
from search.study.explanation import Ancestor
from search.study.subjects import candidate_program


def ancestors(store: Store, name: str, id: int) -> list[Ancestor]:
    """From the seed program down to the candidate; a UsageError for a seed program."""
    line = queries.lineage(store, name, id)
    if len(line) < 2:
        raise UsageError(f"candidate {id} of {name} is a seed program; there is nothing to explain")
    return [
        Ancestor(number, str(record["mutation"]), candidate_program(store, name, number))
        for record in line
        for number in [int(record["id"] or 0)]
    ]
