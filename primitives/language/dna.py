"""A program as frozen data: value banks and an ordered list of subroutines.

Subroutine 0 is MAIN, whose two inputs are both the block's input; subroutine i may call only
subroutines j > i, so a program has no loops (So et al. 2021, appendix A.1).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from primitives.errors import ProgramError, unknown
from primitives.ops.table import PRIMITIVES

DIM_VOCABULARY = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
"""Values of a dim bank, in multiples of d_model/8 (Primer's vocabulary)."""

COUNT_VOCABULARY = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Values of a count bank: experts, entries of a top-k, rows of product keys."""

BRANCHES = (1, 2, 4, 8, 16)
"""How often an instruction may run with weights of its own."""

ROUTED = 0
"""The `branch` of a call whose subroutine runs once for each expert, on the tokens routed there."""

SHARED = -1
"""The `branch` of an instruction whose weights the branches of the call around it share."""

MIDDLE = 0
EVERY = (1, 2, 4, MIDDLE)
"""Which blocks of a model run the program: every one, every second or fourth, the middle one."""

INPUTS = 2
"""Hidden states 0 and 1 of a subroutine are its inputs."""

IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]*\Z")


class Instruction(NamedTuple):
    """One operation making one hidden state.

    `op` names a primitive or is the index of the called subroutine; `in1` and `in2` are indices of
    earlier hidden states; `constant`, `dim` and `count` are indices into the banks; `branch` is how
    many times the op runs, with separate weights and the results concatenated on the feature axis,
    or ROUTED: input 1 holds tokens, input 2 gates, and the result is the sum over a token's gate
    entries (expert i, weight g) of g * callee_i(token), or SHARED: it runs once in each branch of
    the innermost branched call around it, with one weight for all of them. A field that the op does
    not read stays in the genome and has no effect; nor has SHARED where no call around is branched.
    """

    op: str | int
    in1: int = 0
    in2: int = 0
    constant: int = 0
    dim: int = 0
    branch: int = 1
    count: int = 0  # type: ignore[assignment]  # nobody counts an instruction's fields


@dataclass(frozen=True, slots=True)
class Subroutine:
    """Named instructions; the last one's hidden state is the value. `states` names the hidden
    states, inputs first, for readers: names are neither compared nor hashed."""

    name: str
    instructions: tuple[Instruction, ...]
    states: tuple[str, ...] = field(compare=False)


@dataclass(frozen=True, slots=True)
class DNA:
    """A whole program, its numbers resolved for one width.

    Attributes:
        dims: sizes of feature axes, in multiples of d_model/8.
        constants: plain numbers.
        subroutines: the first one is MAIN.
        counts: whole numbers that do not grow with the width, such as a number of experts. Only
            programs that have any are given routing primitives by mutation.
        every: which blocks of a model run the program, one of EVERY.
    """

    dims: tuple[int, ...]
    constants: tuple[float, ...]
    subroutines: tuple[Subroutine, ...]
    counts: tuple[int, ...] = ()
    every: int = 1

    @property
    def length(self) -> int:
        """Instructions in all subroutines together, live or not."""
        return sum(len(subroutine.instructions) for subroutine in self.subroutines)


BANKS = HEADER = -1


class Fault(NamedTuple):
    """What is wrong with a DNA, and where: at instruction `position` of a subroutine, or, at
    position HEADER, in the subroutine's own line. Of subroutine BANKS, positions 0 to 3 are dims,
    constants, counts and `every`."""

    subroutine: int
    position: int
    text: str


def verify(dna: DNA) -> DNA:
    """The same DNA if it is well formed; otherwise ProgramError: place, fault and remedy."""
    fault = first_fault(dna)
    if fault is not None:
        raise ProgramError(fault.text)
    return dna


def first_fault(dna: DNA) -> Fault | None:
    """Why the DNA is not well formed; None if it is."""
    return next(_faults(dna), None)


def _faults(dna: DNA) -> Iterator[Fault]:
    for row, bank in enumerate((dna.dims, dna.constants)):
        if not bank:
            yield Fault(BANKS, row, "each bank, dims and constants, needs at least one value")
    for value in dna.dims:
        if value not in DIM_VOCABULARY:
            yield Fault(BANKS, 0, unknown("dim", str(value), map(str, DIM_VOCABULARY)))
    for number in dna.constants:
        if not math.isfinite(number):
            yield Fault(BANKS, 1, f"constant {number!r} is not a number; allowed: any finite one")
    for value in dna.counts:
        if value not in COUNT_VOCABULARY:
            yield Fault(BANKS, 2, unknown("count", str(value), map(str, COUNT_VOCABULARY)))
    if dna.every not in EVERY:
        yield Fault(BANKS, 3, f"every {dna.every} is not allowed; allowed: 1, 2, 4, middle")
    if not dna.subroutines:
        yield Fault(BANKS, 1, "a program needs at least one subroutine, its main")
    names = [subroutine.name for subroutine in dna.subroutines]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield Fault(index, HEADER, f"two subroutines are named '{name}'; names must differ")
        yield from _subroutine_faults(dna, index)


def _subroutine_faults(dna: DNA, index: int) -> Iterator[Fault]:
    subroutine = dna.subroutines[index]
    name, instructions, states = subroutine.name, subroutine.instructions, subroutine.states
    if not instructions:
        yield Fault(index, HEADER, f"subroutine '{name}' is empty; it needs an instruction")
    if len(states) != INPUTS + len(instructions):
        yield Fault(index, HEADER, f"subroutine '{name}' does not name each hidden state once")
    places = [(HEADER, name), *((max(HEADER, i - INPUTS), s) for i, s in enumerate(states))]
    for position, word in places:
        if not IDENTIFIER.match(word):
            text = f"'{word}' is not a name; allowed: lower case letters, digits and _"
            yield Fault(index, position, text)
    if len(set(states)) != len(states):
        yield Fault(index, HEADER, f"two hidden states of '{name}' have the same name")
    for position, instruction in enumerate(instructions):
        fault = _instruction_fault(dna, index, position, instruction)
        if fault:
            yield Fault(index, position, f"{name}.{states[INPUTS + position]}: {fault}")


def _instruction_fault(dna: DNA, index: int, position: int, instruction: Instruction) -> str | None:
    op, in1, in2, constant, dim, branch, count = instruction
    if isinstance(op, str) and op not in PRIMITIVES:
        return unknown("primitive", op, PRIMITIVES)
    if isinstance(op, int) and not index < op < len(dna.subroutines):
        return f"calls subroutine {op}; only a later one may be called, which rules out loops"
    if not (0 <= in1 < INPUTS + position and 0 <= in2 < INPUTS + position):
        return f"reads states {in1} and {in2}; only 0 to {INPUTS + position - 1} exist before it"
    if not 0 <= constant < len(dna.constants):
        return f"the bank has no constant c{constant}; allowed: c0 to c{len(dna.constants) - 1}"
    if not 0 <= dim < len(dna.dims):
        return f"the bank has no dim d{dim}; allowed: d0 to d{len(dna.dims) - 1}"
    if "count" in _reads(op) and not dna.counts:
        return f"{op} reads a count, and the program has no count bank; add one: counts n0=8"
    if count and not dna.counts:
        return f"the bank has no count n{count}: there is no count bank; add one: counts n0=8"
    if not 0 <= count < max(1, len(dna.counts)):
        return f"the bank has no count n{count}; allowed: n0 to n{len(dna.counts) - 1}"
    if branch not in (*BRANCHES, ROUTED, SHARED):
        allowed = (*map(str, BRANCHES), "routed", "shared")
        return f"branch {branch} is not allowed; allowed: {', '.join(allowed)}"
    return None


def _reads(op: str | int) -> tuple[str, ...]:
    return PRIMITIVES[op].reads if isinstance(op, str) else ()
