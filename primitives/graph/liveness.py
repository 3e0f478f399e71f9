"""What inlining reads of a program: its live instructions, those that its value depends on, with
bank values in the place of indices. Inlining visits no others."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from primitives.language.dna import DNA, INPUTS, ROUTED, Instruction
from primitives.ops.table import PRIMITIVES


class Traits(NamedTuple):
    """What inlining needs of a row of the table.

    Attributes:
        binary: it reads two inputs.
        commutative: they may be exchanged.
        weighted: it owns a weight.
        single: equal instructions are one node: it has no weights and draws nothing at random.
        sized, valued, counted: it reads a dim, a constant, a count.
        unread: it reads no input at all.
        makes_indices, reads_indices: as in the table.
    """

    binary: bool
    commutative: bool
    weighted: bool
    single: bool
    sized: bool
    valued: bool
    counted: bool
    unread: bool
    makes_indices: bool
    reads_indices: bool


class _TraitsByName(dict[str, Traits]):
    """Traits of the table's rows, each read when it is first asked for: plug-ins add rows."""

    def __missing__(self, name: str) -> Traits:
        row = PRIMITIVES[name]
        traits = self[name] = Traits(
            binary=row.binary,
            commutative=row.commutative,
            weighted=row.weight is not None,
            single=row.weight is None and not row.random,
            sized="dim" in row.reads,
            valued="constant" in row.reads,
            counted="count" in row.reads,
            unread="in1" not in row.reads,
            makes_indices=row.makes_indices,
            reads_indices=row.reads_indices,
        )
        return traits


TRAITS = _TraitsByName()

Banks = tuple[tuple[int, ...], tuple[float, ...], tuple[int, ...]]
"""A program's dims, constants and counts."""


Step = tuple[int, "str | int", int, int, int, float, int, "Traits | None"]
"""A live instruction: its position in the subroutine; its op, a primitive's name or the index of
the subroutine that it calls; the two states that it reads, whatever the genes say where it reads
none; how many times it runs, or ROUTED; the dim or constant, and the count, that it reads, else 0;
and the traits of a primitive, None for a call. A plain tuple: Python unpacks it faster."""


class Live(NamedTuple):
    """A subroutine's live instructions, and whether its value reads input 1 and input 2."""

    steps: tuple[Step, ...]
    reads1: bool
    reads2: bool


def liveness(dna: DNA) -> list[Live]:
    """The live instructions of each subroutine. What a callee reads of its inputs is known before
    its callers are looked at, as calls go to later subroutines only."""
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
    """One subroutine's live instructions. `reads` says what the subroutines after it, of `count` in
    all, read of their inputs, the last one first. A child shares most subroutines with its parent,
    so that most answers are known."""
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
    value, size, traits = 0.0, 0, None
    if isinstance(op, str):
        traits, (dims, constants, counts) = TRAITS[op], banks
        if traits.sized:
            value = dims[dim]
        elif traits.valued:
            value = constants[constant] + 0.0  # -0.0 + 0.0 is 0.0
        size = counts[count] if traits.counted else 0
    return position, op, in1, in2, branch, value, size, traits
