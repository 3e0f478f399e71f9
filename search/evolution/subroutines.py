"""Mutations of whole subroutines: one that several calls share, and one of another program."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

from primitives.language.dna import DNA, Instruction, Subroutine
from primitives.language.naming import fresh
from search.evolution.editing import put
from search.evolution.fitting import insert_fitting
from search.evolution.sites import Sites, sites


def split(dna: DNA, rng: Random) -> DNA:
    """One of several calls of a subroutine gets a copy of its own, with an instruction more in it;
    the others go on as they were."""
    found = sites(dna)
    calls = _shared_calls(found) if found is not None else []
    if not calls:
        return dna
    index, position = rng.choice(calls)
    called = dna.subroutines[index].instructions[position].op
    assert isinstance(called, int)
    child = _with_copy(dna, called)
    caller = child.subroutines[index]
    rows = list(caller.instructions)
    rows[position] = rows[position]._replace(op=called + 1)
    child = put(child, index, Subroutine(caller.name, tuple(rows), caller.states))
    return insert_fitting(child, rng, called + 1)


def _shared_calls(found: Sites) -> list[tuple[int, int]]:
    """The live calls, as (subroutine, position), of what is called more than once."""
    calls = [
        (index, step[0], step[1])
        for index in sorted(found.runs)
        for step in found.live[index].steps
        if isinstance(step[1], int)
    ]
    times = Counter(called for _, _, called in calls)
    return [(index, position) for index, position, called in calls if times[called] > 1]


def _with_copy(dna: DNA, index: int) -> DNA:
    """The program with a copy of a subroutine behind it, which nothing calls yet."""

    def moved(subroutine: Subroutine) -> Subroutine:
        rows = tuple(
            row._replace(op=row.op + 1) if isinstance(row.op, int) and row.op > index else row
            for row in subroutine.instructions
        )
        return Subroutine(subroutine.name, rows, subroutine.states)

    subroutines = [moved(subroutine) for subroutine in dna.subroutines]
    names = [subroutine.name for subroutine in subroutines]
    own = subroutines[index]
    copy = Subroutine(fresh(own.name, names), own.instructions, own.states)
    return replace(dna, subroutines=(*subroutines[: index + 1], copy, *subroutines[index + 1 :]))


def cross(dna: DNA, mate: DNA, rng: Random) -> DNA:
    """A subroutine is exchanged for the one of the same name in another program."""
    others = {subroutine.name: subroutine for subroutine in mate.subroutines}
    made = []
    for index, own in enumerate(dna.subroutines):
        other = others.get(own.name)
        if other is None:
            continue
        body = _translated(other, mate, dna, index)
        if body is not None and body != own:
            made.append((index, body))
    if not made:
        return dna
    index, body = rng.choice(made)
    return put(dna, index, body)


def _translated(other: Subroutine, mate: DNA, dna: DNA, index: int) -> Subroutine | None:
    """Another program's subroutine with the indices of this one; None where it cannot be had."""
    places = {subroutine.name: place for place, subroutine in enumerate(dna.subroutines)}
    rows: list[Instruction] = []
    for row in other.instructions:
        op = places.get(mate.subroutines[row.op].name, -1) if isinstance(row.op, int) else row.op
        if isinstance(op, int) and op <= index:
            return None
        if row.dim >= len(dna.dims) or row.constant >= len(dna.constants):
            return None
        rows.append(row._replace(op=op))
    return Subroutine(other.name, tuple(rows), other.states)
