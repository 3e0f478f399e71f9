"""The live program: what of a genome runs, written as a program of its own, for people to read."""

from __future__ import annotations

from primitives.graph.liveness import Live, liveness
from primitives.language.dna import DNA, INPUTS, ROUTED, SHARED, Instruction, Subroutine
from primitives.language.naming import derived, fresh, stale
from primitives.ops.table import PRIMITIVES

_FIELDS = ("constant", "dim", "count")
"""Fields that are indices into a bank."""

_UNREAD_DIM, _UNREAD_CONSTANT = 8, 0.0
"""What a bank holds that nothing reads: dims and constants need at least one value."""


def live_program(dna: DNA) -> DNA:
    """The program without what has no effect; its canonical hash is that of `dna`.

    Gone are dead instructions, subroutines that are never called, inputs and fields that an op does
    not read (in the text form they are left out), and bank values that nothing reads; what is left
    of each is renumbered. A state whose name was derived from another op than its own is named
    after its own, so that `dconv_3x1 = CONV 1X1(x)` becomes `conv_1x1 = CONV 1X1(x)`.
    """
    lives = liveness(dna)
    called = _called(lives)
    rows = {index: _rows(dna, index, lives) for index in called}
    read = [row for index in called for row in rows[index]]
    banks = {field: _used(read, field) for field in _FIELDS}
    places = {index: place for place, index in enumerate(called)}
    return DNA(
        tuple(dna.dims[i] for i in banks["dim"]) or (_UNREAD_DIM,),
        tuple(dna.constants[i] for i in banks["constant"]) or (_UNREAD_CONSTANT,),
        tuple(
            Subroutine(
                dna.subroutines[index].name,
                tuple(_renumbered(row, places, banks) for row in rows[index]),
                _states(dna, index, lives[index]),
            )
            for index in called
        ),
        tuple(dna.counts[i] for i in banks["count"]),
        dna.every,
    )


def _called(lives: list[Live]) -> list[int]:
    """Subroutines that run, main first: callers stand before what they call."""
    called = {0}
    for index, live in enumerate(lives):
        if index in called:
            called |= {step[1] for step in live.steps if isinstance(step[1], int)}
    return sorted(called)


def _used(rows: list[Instruction], field: str) -> dict[int, int]:
    """Of the bank entries that rows read through a field, the new index by the old one."""
    read = {getattr(row, field) for row in rows if field in _reads(row.op)}
    return {old: new for new, old in enumerate(sorted(read))}


def _rows(dna: DNA, index: int, lives: list[Live]) -> list[Instruction]:
    """A subroutine's live instructions, reading states by their new places; what they do not read
    is at its default."""
    places = {state: state for state in range(INPUTS)}
    rows: list[Instruction] = []
    for position, *_ in lives[index].steps:
        row = dna.subroutines[index].instructions[position]
        reads = _reads(row.op) if isinstance(row.op, str) else _call_reads(row, lives)
        in1, in2 = (places.get(state, 0) for state in (row.in1, row.in2))
        if "in2" not in reads:
            in2 = in1 = in1 if "in1" in reads else 0
        elif "in1" not in reads:
            in1 = in2
        silent = {name: 0 for name in _FIELDS if name not in reads}
        if row.branch == SHARED and isinstance(row.op, str) and not PRIMITIVES[row.op].weight:
            silent["branch"] = 1
        rows.append(row._replace(in1=in1, in2=in2, **silent))
        places[INPUTS + position] = INPUTS + len(rows) - 1
    return rows


def _reads(op: str | int) -> tuple[str, ...]:
    return PRIMITIVES[op].reads if isinstance(op, str) else ()


def _call_reads(row: Instruction, lives: list[Live]) -> tuple[str, ...]:
    """Inputs that a call needs: a routed one tokens and gates, any other what its callee reads."""
    assert isinstance(row.op, int)
    if row.branch == ROUTED:
        return "in1", "in2"
    callee = lives[row.op]
    return ("in1",) * callee.reads1 + ("in2",) * callee.reads2


def _renumbered(
    row: Instruction, places: dict[int, int], banks: dict[str, dict[int, int]]
) -> Instruction:
    """The row with the new indices of its callee and of the bank entries that it reads."""
    if isinstance(row.op, int):
        return row._replace(op=places[row.op])
    read = {
        field: banks[field][getattr(row, field)] for field in _FIELDS if field in _reads(row.op)
    }
    return row._replace(**read)


def _states(dna: DNA, index: int, live: Live) -> tuple[str, ...]:
    """Names of a subroutine's live states, inputs first; stale ones are derived anew."""
    subroutine = dna.subroutines[index]
    ops = [subroutine.instructions[position].op for position, *_ in live.steps]
    names = [subroutine.states[INPUTS + position] for position, *_ in live.steps]
    old = [stale(name, op, dna) for name, op in zip(names, ops, strict=True)]
    taken = {*subroutine.states[:INPUTS]}
    taken |= {name for name, is_old in zip(names, old, strict=True) if not is_old}
    for place, op in enumerate(ops):
        if old[place]:
            names[place] = fresh(derived(op, dna.subroutines), taken)
            taken.add(names[place])
    return (*subroutine.states[:INPUTS], *names)
