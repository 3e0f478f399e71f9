"""Edits of a program that mutations are made of: each keeps it well formed."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from primitives.language.dna import BRANCHES, DNA, INPUTS, ROUTED, SHARED, Instruction, Subroutine
from primitives.language.naming import derived, fresh
from primitives.ops.table import PRIMITIVES

BRANCHED = 0.1
"""How often a new instruction is branched."""


def new_branches(dna: DNA) -> tuple[int, ...]:
    """What the `branch` of a new instruction may be. Only programs that share weights somewhere are
    given more of that, so that others have the children that they always had."""
    shares = any(row.branch == SHARED for each in dna.subroutines for row in each.instructions)
    return (*BRANCHES, SHARED) if shares else BRANCHES


def branches(dna: DNA) -> tuple[int, ...]:
    """What the field may be: routed, too, where a program has counts."""
    return (*new_branches(dna), ROUTED) if dna.counts else new_branches(dna)


def put(dna: DNA, index: int, subroutine: Subroutine) -> DNA:
    """The program with another subroutine number `index`."""
    subroutines = dna.subroutines
    rest = subroutines[index + 1 :]
    return replace(dna, subroutines=(*subroutines[:index], subroutine, *rest))


def without(subroutine: Subroutine, position: int, instead: int) -> Subroutine:
    """The subroutine without one of its instructions: what read its state reads the state
    `instead`, which is an earlier one."""
    rows, gone = subroutine.instructions, INPUTS + position

    def moved(state: int) -> int:
        return instead if state == gone else state - (state > gone)

    later = (row._replace(in1=moved(row.in1), in2=moved(row.in2)) for row in rows[position + 1 :])
    states = subroutine.states[:gone] + subroutine.states[gone + 1 :]
    return Subroutine(subroutine.name, (*rows[:position], *later), states)


def with_instruction(
    dna: DNA, subroutine: Subroutine, reader: int, field: str, new: Instruction
) -> Subroutine:  # fmt: skip
    """The subroutine with a new instruction before the one at position `reader`, whose `field`
    then reads the new state; after the last one where `field` is empty."""
    rows, made = subroutine.instructions, INPUTS + reader
    later = [
        row._replace(in1=row.in1 + (row.in1 >= made), in2=row.in2 + (row.in2 >= made))
        for row in rows[reader:]
    ]
    if field:
        later[0] = later[0]._replace(**{field: made})
    name = _name_after(dna, new.op, subroutine.states)
    states = (*subroutine.states[:made], name, *subroutine.states[made:])
    return Subroutine(subroutine.name, (*rows[:reader], new, *later), states)


def with_row(dna: DNA, index: int, position: int, new: Instruction) -> DNA:
    """The program with another instruction at a position of subroutine number `index`, whose state
    gets a new name where the operation is a new one."""
    subroutine = dna.subroutines[index]
    rows, states = subroutine.instructions, subroutine.states
    if new.op != rows[position].op:
        before, after = states[: INPUTS + position], states[INPUTS + position + 1 :]
        states = (*before, _name_after(dna, new.op, (*before, *after)), *after)
    changed = (*rows[:position], new, *rows[position + 1 :])
    return put(dna, index, Subroutine(subroutine.name, changed, states))


def ops_for(dna: DNA, index: int) -> tuple[str | int, ...]:
    """What an instruction of subroutine number `index` may be: primitives, then the subroutines
    that it may call."""
    calls = range(index + 1, len(dna.subroutines))
    return (*vocabulary(bool(dna.counts), len(PRIMITIVES)), *calls)


@cache
def vocabulary(experts: bool, size: int) -> tuple[str, ...]:
    """The primitives that a program is given: all but the acausal ones if it speaks of experts,
    else Primer's language; none that marks. The table only grows, so its `size` says what is in
    it."""
    rows = [(name, row) for name, row in PRIMITIVES.items() if not row.marks]
    return tuple(name for name, row in rows if not (row.bidirectional if experts else row.routing))


def _name_after(dna: DNA, op: str | int, taken: tuple[str, ...]) -> str:
    """A state's name after its op, with a number where that is taken."""
    return fresh(derived(op, dna.subroutines), taken)
