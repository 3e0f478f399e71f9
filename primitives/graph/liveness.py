"""What inlining reads of a program: its live instructions, those that its value depends on, with
bank values in the place of indices. Inlining visits no others."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from primitives.language.dna import DNA, INPUTS, ROUTED, Instruction
from primitives.ops.table import PRIMITIVES


class Traits(NamedTuple):
    """What inlining needs of a row of the table."""

    binary: bool
    commutative: bool
    weighted: bool
    sized: bool
    valued: bool
    counted: bool
    unread: bool


TRAITS = {
    name: Traits(
        row.binary,
        row.commutative,
        row.weight is not None,
        "dim" in row.reads,
        "constant" in row.reads,
        "count" in row.reads,
        "in1" not in row.reads,
    )
    for name, row in PRIMITIVES.items()
}

Banks = tuple[tuple[int, ...], tuple[float, ...], tuple[int, ...]]
"""A program's dims, constants and counts."""

Step = tuple[int, "str | int", int, int, int, float, int]
"""A live instruction: position, op, the states that it reads, branch, and the dim or constant and
the count that its op reads, else 0."""


class Live(NamedTuple):
    """A subroutine's live instructions, and whether its value reads input 1 and input 2."""

    steps: tuple[Step, ...]
    reads1: bool
    reads2: bool


def liveness(dna: DNA) -> list[Live]:
    subroutines, banks = dna.subroutines, (dna.dims, dna.constants, dna.counts)
    below: list[Live] = []
    reads: tuple[tuple[bool, bool], ...] = ()
    for subroutine in reversed(subroutines):
        live = _live(subroutine.instructions, len(subroutines), reads, banks)
        below.append(live)
        reads = (*reads, live[1:])
    below.reverse()
    return below


@lru_cache(maxsize=1 << 14)
def _live(
    instructions: tuple[Instruction, ...],
    count: int,
    reads: tuple[tuple[bool, bool], ...],
    banks: Banks,
) -> Live:
    """Of one subroutine, given what those after it read of their inputs, the last of `count` first.
    A child shares most subroutines with its parent, so that most answers are known."""
    needed = bytearray(INPUTS + len(instructions))
    needed[-1] = 1
    live: list[Step] = []
    for position in range(len(instructions) - 1, -1, -1):
        if needed[INPUTS + position]:
            live.append(_step(position, instructions[position], banks))
            op, in1, in2, _, _, branch, _ = instructions[position]
            if isinstance(op, str):
                needed[in1] |= not TRAITS[op].unread
                needed[in2] |= TRAITS[op].binary
            elif branch == ROUTED:
                needed[in1] = needed[in2] = 1
            else:
                reads1, reads2 = reads[count - 1 - op]
                needed[in1] |= reads1
                needed[in2] |= reads2
    live.reverse()
    return Live(tuple(live), bool(needed[0]), bool(needed[1]))


def _step(position: int, instruction: Instruction, banks: Banks) -> Step:
    op, in1, in2, constant, dim, branch, count = instruction
    value, size = 0.0, 0
    if isinstance(op, str):
        traits, (dims, constants, counts) = TRAITS[op], banks
        if traits.sized:
            value = dims[dim]
        elif traits.valued:
            value = constants[constant] + 0.0  # -0.0 + 0.0 is 0.0
        size = counts[count] if traits.counted else 0
    return position, op, in1, in2, branch, value, size
