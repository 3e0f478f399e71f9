"""Mutations that look at a program before they change it: they touch only what runs, and draw among
the operations that fit there.

Primer's own insertion and redrawn field change nothing in a third to a half of all tries, as they
hit instructions, inputs or subroutines that have no effect, and one in ten has no type. Here types
are inferred first, for every call of the subroutine that is changed. What is drawn keeps the
type of what reads it, so that almost all children have a type and compute something else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, NamedTuple, TypeVar

from primitives.graph.build import Graph, build
from primitives.language.dna import DNA, INPUTS, SHARED, Instruction
from primitives.ops.state import StateType
from primitives.ops.table import PRIMITIVES
from search.evolution.editing import (
    BRANCHED,
    branches,
    new_branches,
    ops_for,
    put,
    with_instruction,
    with_row,
)
from search.evolution.sites import Run, Sites, sites

_T = TypeVar("_T")

_NEW = -1
"""Stands for the state that an inserted instruction makes, which has no index yet."""

_TRIES = 10
"""Places that are tried before Primer's own mutation is made instead."""


class _Place(NamedTuple):
    """What has to hold where an instruction comes: the types that its state has to have in each
    run, or else the live instructions that read it and must keep theirs, by position. A
    subroutine's value, which others read, has to keep its type."""

    wanted: list[StateType]
    readers: list[tuple[int, Instruction]]
    is_value: bool
    state: int


def insert_fitting(dna: DNA, rng: Random) -> DNA:
    """Puts an instruction on an edge that runs, or after a value that is read: one that fits, of
    all operations, with a second input or a dim that lets it."""
    found = sites(dna)
    if found is None:
        return dna
    for _ in range(_TRIES):
        index = rng.choice(sorted(found.runs))
        subroutine, runs = dna.subroutines[index], found.runs[index]
        rows = subroutine.instructions
        position, field = rng.choice([*found.edges(index), (len(rows), "")])
        source = getattr(rows[position], field) if field else INPUTS + len(rows) - 1
        if any(source not in run.types for run in runs):
            continue
        wanted = [run.types[source] for run in runs]
        readers = [(position, rows[position]._replace(**{field: _NEW}))] if field else []
        place = _Place(wanted, readers, not field, _NEW)
        for new in _instructions(dna, index, source, INPUTS + position, rng):
            if isinstance(new.op, str):
                if _fits(found, runs, new, place):
                    return put(dna, index, with_instruction(dna, subroutine, position, field, new))
            else:
                child = put(dna, index, with_instruction(dna, subroutine, position, field, new))
                if isinstance(build(child, found.bidirectional), Graph):
                    return child
    return dna


def field_fitting(dna: DNA, rng: Random) -> DNA:
    """Draws one field of a live instruction again: one that has an effect, and another value that
    fits. A dim, a count or a branch that changes the type of what reads it is tried, too."""
    found = sites(dna)
    if found is None:
        return dna
    for _ in range(_TRIES):
        index = rng.choice(sorted(found.runs))
        runs = found.runs[index]
        position = rng.choice(found.live[index].steps)[0]
        row = dna.subroutines[index].instructions[position]
        field = rng.choice(_fields(found, index, position))
        place = _standing(found, index, position)
        for value in _shuffled(_values(dna, index, position, field), rng):
            drawn: dict[str, Any] = {field: value}
            new = row._replace(**drawn)
            if _same(dna, row, new):
                continue
            if not isinstance(new.op, str) or field in _SIZES:
                child = with_row(dna, index, position, new)
                if not isinstance(build(child, found.bidirectional), Graph):
                    continue
                if SHARED not in (row.branch, new.branch) or _differ(dna, child, found):
                    return child
            elif _fits(found, runs, new, place):
                return with_row(dna, index, position, new)
    return dna


def share(dna: DNA, rng: Random) -> DNA:
    """Has the branches of a call share the weights of one of its instructions, or of what that
    calls; or gives each branch its own again."""
    found = sites(dna)
    if found is None:
        return dna
    places = [
        (index, position)
        for index in sorted(found.runs)
        for position, *_ in found.live[index].steps
        if any(run.context and run.context[-1] > 0 for run in found.runs[index])
        and _may_share(dna.subroutines[index].instructions[position])
    ]
    for index, position in _shuffled(places, rng):
        row = dna.subroutines[index].instructions[position]
        new = row._replace(branch=1 if row.branch == SHARED else SHARED)
        child = with_row(dna, index, position, new)
        if _differ(dna, child, found):
            return child
    return dna


def _differ(one: DNA, other: DNA, found: Sites) -> bool:
    """Whether two programs that have a type are two functions."""
    first, second = build(one, found.bidirectional), build(other, found.bidirectional)
    return isinstance(first, Graph) and isinstance(second, Graph) and first.hash != second.hash


def _may_share(row: Instruction) -> bool:
    """Whether it may have weights, and runs once in each branch around it, shared or not."""
    weighs = not isinstance(row.op, str) or PRIMITIVES[row.op].weight is not None
    return weighs and row.branch in (1, SHARED)


_SIZES = ("dim", "count", "branch")


def _fields(found: Sites, index: int, position: int) -> list[str]:
    """The fields of an instruction that have an effect."""
    op = found.dna.subroutines[index].instructions[position].op
    read = [field for place, field in found.edges(index) if place == position]
    banks = [f for f in PRIMITIVES[op].reads if f[:2] != "in"] if isinstance(op, str) else []
    return ["op", *read, *banks, "branch"]


def _values(dna: DNA, index: int, position: int, field: str) -> Sequence[str | int]:
    """What a field may hold."""
    if field == "op":
        return ops_for(dna, index)
    if field == "branch":
        return branches(dna)
    if field in ("in1", "in2"):
        return range(INPUTS + position)
    return range(len(getattr(dna, f"{field}s")))


def _same(dna: DNA, old: Instruction, new: Instruction) -> bool:
    """Whether a new row says what the old one does, by another index of equal bank values."""
    banks = ("constant", dna.constants), ("dim", dna.dims), ("count", dna.counts)
    resolved = [
        row._replace(**{f: bank[getattr(row, f)] for f, bank in banks if bank})
        for row in (old, new)
    ]
    return resolved[0] == resolved[1]


def _standing(found: Sites, index: int, position: int) -> _Place:
    """What has to hold where a live instruction stands."""
    state, rows = INPUTS + position, found.dna.subroutines[index].instructions
    readers = {at for at, field in found.edges(index) if getattr(rows[at], field) == state}
    wanted = [run.types[state] for run in found.runs[index]]
    return _Place(wanted, [(at, rows[at]) for at in readers], position == len(rows) - 1, state)


def _instructions(
    dna: DNA, index: int, source: int, before: int, rng: Random
) -> Iterator[Instruction]:  # fmt: skip
    """Instructions that read `source`, in random order of their operations; for each of these, all
    second inputs and dims, in random order."""
    branch = rng.choice(new_branches(dna)) if rng.random() < BRANCHED else 1
    count = rng.randrange(len(dna.counts)) if dna.counts else 0
    constant, dim, other = (
        rng.randrange(n) for n in (len(dna.constants), len(dna.dims), before)
    )  # fmt: skip
    drawn = Instruction("", source, other, constant, dim, branch, count)
    for op in _shuffled(ops_for(dna, index), rng):
        reads = PRIMITIVES[op].reads if isinstance(op, str) else ("in1", "in2")
        for in2 in _shuffled(range(before), rng) if "in2" in reads else (other,):
            for size in _shuffled(range(len(dna.dims)), rng) if "dim" in reads else (dim,):
                yield drawn._replace(op=op, in2=in2, dim=size)


def _fits(found: Sites, runs: Sequence[Run], row: Instruction, place: _Place) -> bool:
    """Whether an instruction has a type in every run, and its readers keep theirs."""
    for run, wanted in zip(runs, place.wanted, strict=True):
        made = found.type_of(row, run)
        if made is None:
            return False
        if made is wanted:
            continue
        if place.is_value:
            return False
        changed = run._replace(types={**run.types, place.state: made})
        for position, reader in place.readers:
            if found.type_of(reader, changed) is not run.types[INPUTS + position]:
                return False
    return True


def _shuffled(values: Sequence[_T], rng: Random) -> list[_T]:
    return rng.sample(values, len(values))
