"""Primer's six mutations (So et al. 2021, appendix A): one small random change of a program.

A mutation is a function of a DNA and a random source, and gives a well-formed DNA, which need not
type-check nor differ in what it computes: the gates judge that, and the controller asks again. A
plug-in's mutation is a row of MUTATIONS like these; a campaign uses it where `search.mutations`
names it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

from primitives.language.dna import (
    COUNT_VOCABULARY,
    DIM_VOCABULARY,
    DNA,
    EVERY,
    INPUTS,
    Instruction,
    Subroutine,
)
from primitives.ops.table import PRIMITIVES
from primitives.registry import Registry
from search.evolution.editing import (
    BRANCHED,
    branches,
    new_branches,
    put,
    vocabulary,
    with_instruction,
    with_row,
    without,
)
from search.evolution.fitting import field_fitting, insert_fitting, share
from search.evolution.marking import remember

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, slots=True)
class Mutation:
    """A row of MUTATIONS. `change` returns a well-formed child of a program and leaves the program
    as it is; the random source is all that it may draw from, so that a campaign can be repeated."""

    name: str
    change: Callable[[DNA, random.Random], DNA]
    meaning: str


_CALL_READS = ("op", "in1", "in2", "branch")


def mutate(
    dna: DNA, rng: random.Random, probabilities: Mapping[str, float] | None = None
) -> tuple[DNA, str]:
    """A child of `dna` and the name of the mutation that made it.

    `probabilities` maps names of MUTATIONS to weights, by default DEFAULT_PROBABILITIES.
    """
    weights = DEFAULT_PROBABILITIES if probabilities is None else probabilities
    name = rng.choices(tuple(weights), tuple(weights.values()))[0]
    return MUTATIONS[name].change(dna, rng), name


def delete(dna: DNA, rng: random.Random) -> DNA:
    """Removes an instruction; what read its state reads one of the states that it read instead. A
    subroutine's only instruction stays."""
    index = rng.randrange(len(dna.subroutines))
    return put(dna, index, _without_one(dna.subroutines[index], rng))


def insert(dna: DNA, rng: random.Random) -> DNA:
    """Puts a random instruction on an edge: between a state and one of its readers, or after the
    last state, so that the new state is read."""
    index = rng.randrange(len(dna.subroutines))
    return put(dna, index, _with_one_more(dna, index, dna.subroutines[index], rng))


def delete_insert(dna: DNA, rng: random.Random) -> DNA:
    """Delete and insert in one subroutine (uniform mutation by addition and deletion, UMAD)."""
    index = rng.randrange(len(dna.subroutines))
    shorter = _without_one(dna.subroutines[index], rng)
    return put(dna, index, _with_one_more(dna, index, shorter, rng))


def mutate_field(dna: DNA, rng: random.Random) -> DNA:
    """Redraws one field, among those that the op reads, of one instruction."""
    index = rng.randrange(len(dna.subroutines))
    subroutine = dna.subroutines[index]
    position = rng.randrange(len(subroutine.instructions))
    old = subroutine.instructions[position]
    field = rng.choice(_fields(old.op))
    drawn: dict[str, Any] = {field: _draw(dna, index, position, field, rng)}
    return with_row(dna, index, position, old._replace(**drawn))


def swap(dna: DNA, rng: random.Random) -> DNA:
    """Two instructions of a subroutine exchange their places in the compute graph: each takes the
    other's inputs, and its state keeps its name."""
    index = rng.randrange(len(dna.subroutines))
    subroutine = dna.subroutines[index]
    rows = list(subroutine.instructions)
    if len(rows) < 2:
        return dna
    first, second = rng.sample(range(len(rows)), 2)
    a, b = rows[first], rows[second]
    rows[first] = b._replace(in1=a.in1, in2=a.in2)
    rows[second] = a._replace(in1=b.in1, in2=b.in2)
    states = list(subroutine.states)
    x, y = INPUTS + first, INPUTS + second
    states[x], states[y] = states[y], states[x]
    return put(dna, index, Subroutine(subroutine.name, tuple(rows), tuple(states)))


def mutate_bank(dna: DNA, rng: random.Random) -> DNA:
    """Changes one bank value, and so every instruction that holds its index: a dim or a count is
    redrawn from its vocabulary, a constant c becomes c * 10**X + Y with X, Y ~ N(0, 1). Where there
    are counts, which blocks of the model run the program is one more such value."""
    banks = len(dna.dims), len(dna.constants), len(dna.counts)
    slot = rng.randrange(sum(banks) + bool(dna.counts))
    if slot < banks[0]:
        return replace(dna, dims=_redrawn(dna.dims, slot, rng.choice(DIM_VOCABULARY)))
    slot -= banks[0]
    if slot < banks[1]:
        scaled = dna.constants[slot] * 10 ** rng.gauss(0, 1) + rng.gauss(0, 1)
        constant = float(f"{scaled:.6g}")
        return replace(dna, constants=_redrawn(dna.constants, slot, constant))
    slot -= banks[1]
    if slot < banks[2]:
        return replace(dna, counts=_redrawn(dna.counts, slot, rng.choice(COUNT_VOCABULARY)))
    return replace(dna, every=rng.choice(EVERY))


def _redrawn(bank: tuple[_Number, ...], slot: int, value: _Number) -> tuple[_Number, ...]:
    values = list(bank)
    values[slot] = value
    return tuple(values)


MUTATIONS: Registry[Mutation] = Registry(
    "mutation",
    (
        Mutation("delete", delete, "an instruction less"),
        Mutation("insert", insert, "a random instruction more"),
        Mutation("delete_insert", delete_insert, "one less and one more in a subroutine"),
        Mutation("field", mutate_field, "a field of an instruction drawn again"),
        Mutation("swap", swap, "two instructions exchange their inputs"),
        Mutation("bank", mutate_bank, "a value of a bank, or `every`, drawn again"),
        Mutation("insert_fitting", insert_fitting, "an instruction more, where it runs and fits"),
        Mutation("field_fitting", field_fitting, "a field drawn again that runs, to what fits"),
        Mutation("share", share, "branches share a weight, or have their own again"),
        Mutation("remember", remember, "another state is what contexts are remembered by"),
    ),
)

_PRIMERS = ("delete", "insert", "delete_insert", "field", "swap", "bank")
DEFAULT_PROBABILITIES: dict[str, float] = dict.fromkeys(_PRIMERS, 1 / len(_PRIMERS))
"""These six, uniform: Primer does not report its probabilities."""


def _without_one(subroutine: Subroutine, rng: random.Random) -> Subroutine:
    rows = subroutine.instructions
    if len(rows) < 2:
        return subroutine
    position = rng.randrange(len(rows))
    instead = getattr(rows[position], rng.choice(_edges(rows[position])))
    return without(subroutine, position, instead)


def _with_one_more(
    dna: DNA, index: int, subroutine: Subroutine, rng: random.Random
) -> Subroutine:  # fmt: skip
    rows = subroutine.instructions
    edges = [(reader, field) for reader, row in enumerate(rows) for field in _edges(row)]
    reader, field = rng.choice([*edges, (len(rows), "")])
    source = getattr(rows[reader], field) if field else INPUTS + len(rows) - 1
    new = Instruction(
        _draw_op(dna, index, rng),
        source,
        rng.randrange(INPUTS + reader),
        rng.randrange(len(dna.constants)),
        rng.randrange(len(dna.dims)),
        rng.choice(new_branches(dna)) if rng.random() < BRANCHED else 1,
        rng.randrange(len(dna.counts)) if dna.counts else 0,
    )
    return with_instruction(dna, subroutine, reader, field, new)


def _edges(row: Instruction) -> tuple[str, ...]:
    """Fields with the states that an instruction reads."""
    return ("in1",) if isinstance(row.op, str) and not PRIMITIVES[row.op].binary else ("in1", "in2")


def _fields(op: str | int) -> tuple[str, ...]:
    """The fields of an instruction that its op reads."""
    return _reads_of(op) if isinstance(op, str) else _CALL_READS


@cache
def _reads_of(op: str) -> tuple[str, ...]:
    return ("op", *PRIMITIVES[op].reads, "branch")


def _draw_op(dna: DNA, index: int, rng: random.Random) -> str | int:
    names = vocabulary(bool(dna.counts), len(PRIMITIVES))
    choice = rng.randrange(len(names) + len(dna.subroutines) - 1 - index)
    return names[choice] if choice < len(names) else index + 1 + choice - len(names)


def _draw(dna: DNA, index: int, position: int, field: str, rng: random.Random) -> str | int:
    if field == "op":
        return _draw_op(dna, index, rng)
    if field == "branch":
        return rng.choice(branches(dna))
    if field == "count":
        return rng.randrange(len(dna.counts))
    if field == "constant":
        return rng.randrange(len(dna.constants))
    if field == "dim":
        return rng.randrange(len(dna.dims))
    return rng.randrange(INPUTS + position)
