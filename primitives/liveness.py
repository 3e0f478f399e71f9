"""Which instructions of a program count: those that its value depends on. Inlining visits no
others."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from primitives.dna import DNA, INPUTS, ROUTED, Instruction
from primitives.table import PRIMITIVES


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

Live = tuple[tuple[int, ...], bool, bool]
"""A subroutine's live positions, and whether its value reads input 1 and input 2."""


def liveness(dna: DNA) -> list[Live]:
    subroutines = dna.subroutines
    below: list[Live] = []
    reads: tuple[tuple[bool, bool], ...] = ()
    for subroutine in reversed(subroutines):
        live = _live(subroutine.instructions, len(subroutines), reads)
        below.append(live)
        reads = (*reads, live[1:])
    below.reverse()
    return below


@lru_cache(maxsize=1 << 14)
def _live(
    instructions: tuple[Instruction, ...], count: int, reads: tuple[tuple[bool, bool], ...]
) -> Live:
    """Of one subroutine, given what those after it read of their inputs, the last of `count` first.
    A child shares most subroutines with its parent, so that most answers are known."""
    needed = bytearray(INPUTS + len(instructions))
    needed[-1] = 1
    live: list[int] = []
    for position in range(len(instructions) - 1, -1, -1):
        if needed[INPUTS + position]:
            live.append(position)
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
    return tuple(live), bool(needed[0]), bool(needed[1])
