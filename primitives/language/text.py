"""The written form of a program, for people: one instruction a line, hidden states by name.

    dims d0=8 d1=1 d2=32
    constants c0=0.0 c1=rsqrt(d1)
    counts n0=8 n1=2
    every 2

    main(x, y):
      normed = layer_norm(x)
      heads = attention(normed) branch=8
      mixed = CONV 1X1(heads) dim=d0
      attended = ADD(x, mixed)
      gates = router(attended)
      fed = expert(attended, gates) branch=routed
      joined = ADD(attended, fed)

A `#` starts a comment. A constant is a number, or an expression of dims (see `constant`) that is
resolved for the width given to `parse`: a DNA holds numbers only. `counts` and `every` (1, 2, 4 or
middle: which blocks of the model run the program) may be left out, and so may input 2 where it
equals input 1, and `constant`, `dim`, `count` and `branch` where they are c0, d0, n0 and 1. A
`branch` is a number, `routed` or `shared`. Later subroutines are called by name. Names of states
are for readers: they are not compared. `parse(render(dna)) == dna` for every well-formed DNA: what
`render` writes holds numbers, too, and needs no width.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeVar

from primitives.errors import ProgramError, unknown
from primitives.language.constant import resolve
from primitives.language.dna import (
    BANKS,
    BRANCHES,
    DNA,
    EVERY,
    HEADER,
    INPUTS,
    MIDDLE,
    ROUTED,
    SHARED,
    Instruction,
    Subroutine,
    first_fault,
)
from primitives.ops.table import PRIMITIVES

_HEADER = re.compile(r"(?P<name>\w+)\s*\(\s*(?P<x>\w+)\s*,\s*(?P<y>\w+)\s*\)\s*:\s*\Z")
_LINE = re.compile(
    r"(?P<state>\w+)\s*=\s*(?P<op>[\w -]+?)\s*\(\s*(?P<x>\w+)\s*(?:,\s*(?P<y>\w+)\s*)?\)"
    r"\s*(?P<fields>.*)\Z"
)
_Number = TypeVar("_Number", int, float)
_LETTERS = {"constant": "c", "dim": "d", "count": "n", "branch": ""}
_BRANCH_WORDS = {"routed": ROUTED, "shared": SHARED}
_EVERY = {"middle" if value == MIDDLE else str(value): value for value in EVERY}
_DIGITS = 9
"""The longest whole number that is read."""
_FORM = "allowed: NAME = OP(INPUT[, INPUT]) [constant=cN] [dim=dN] [count=nN] [branch=N]"


def render(dna: DNA) -> str:
    """The program as text."""
    dims = " ".join(f"d{i}={value}" for i, value in enumerate(dna.dims))
    constants = " ".join(f"c{i}={value!r}" for i, value in enumerate(dna.constants))
    parts = [f"dims {dims}\nconstants {constants}\n"]
    if dna.counts:
        parts[0] += f"counts {' '.join(f'n{i}={value}' for i, value in enumerate(dna.counts))}\n"
    if dna.every != 1:
        parts[0] += f"every {'middle' if dna.every == MIDDLE else dna.every}\n"
    for subroutine in dna.subroutines:
        x, y = subroutine.states[:INPUTS]
        lines = [f"{subroutine.name}({x}, {y}):"]
        for position, instruction in enumerate(subroutine.instructions):
            lines.append(f"  {_line(dna, subroutine.states, position, instruction)}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _line(dna: DNA, states: tuple[str, ...], position: int, instruction: Instruction) -> str:
    op, in1, in2, constant, dim, branch, count = instruction
    reads: tuple[str, ...] = ()
    if isinstance(op, str):
        name, reads = op, PRIMITIVES[op].reads
    else:
        name = dna.subroutines[op].name
    second = f", {states[in2]}" if "in2" in reads or in2 != in1 else ""
    text = f"{states[INPUTS + position]} = {name}({states[in1]}{second})"
    if "constant" in reads or constant:
        text += f" constant=c{constant}"
    if "dim" in reads or dim:
        text += f" dim=d{dim}"
    if "count" in reads or count:
        text += f" count=n{count}"
    if branch == 1:
        return text
    word = next((word for word, value in _BRANCH_WORDS.items() if value == branch), branch)
    return f"{text} branch={word}"


def parse(
    text: str,
    source: str = "<program>",
    d_model: int | None = None,
    banks: Mapping[str, int] | None = None,
) -> DNA:
    """The DNA that `text` says, its constants resolved for a model of `d_model` channels, where any
    is an expression. `banks` holds other values for dims and counts by name (d0, n0). ProgramError
    gives source:line, what is wrong, what is allowed."""
    return _Parser(text, source, d_model, banks or {}).parse()


class _Parser:
    """Reads lines from the first to the last; `number` is the line that a fault is reported at."""

    def __init__(
        self, text: str, source: str, d_model: int | None, banks: Mapping[str, int]
    ) -> None:
        self.source, self.d_model, self.banks = source, d_model, banks
        self.lines = deque(
            (number, line, _HEADER.match(line))
            for number, raw in enumerate(text.splitlines(), 1)
            if (line := raw.split("#", 1)[0].strip())
        )
        self.number = 1
        self.places: dict[tuple[int, int], int] = {}
        headers = [header for _, _, header in self.lines if header]
        self.callees = {header["name"]: index for index, header in enumerate(headers)}

    def parse(self) -> DNA:
        dims = self.bank(0, "dims", "d", self.whole)
        constants = self.bank(1, "constants", "c", lambda text: self.constant(text, dims))
        counts = self.bank(2, "counts", "n", self.whole) if self.starts("counts") else ()
        every = self.every() if self.starts("every") else 1
        subroutines: list[Subroutine] = []
        while self.lines:
            subroutines.append(self.subroutine(len(subroutines)))
        if not subroutines:
            raise self.error("a program needs a subroutine, its main, below its banks: main(x, y):")
        dna = DNA(dims, constants, tuple(subroutines), counts, every)
        fault = first_fault(dna)
        if fault is not None:
            self.number = self.places[fault.subroutine, fault.position]
            raise self.error(fault.text)
        return dna

    def starts(self, word: str) -> bool:
        """Whether the next line begins with this word."""
        return bool(self.lines) and self.lines[0][1].split()[0] == word

    def next(self) -> str:
        """The next line, taken off the list; there is one."""
        self.number, line, _ = self.lines.popleft()
        return line

    def bank(
        self, row: int, word: str, letter: str, read: Callable[[str], _Number]
    ) -> tuple[_Number, ...]:
        if not self.lines:
            raise self.error("a program is two banks, dims and constants, and its subroutines")
        line = self.next()
        self.places[BANKS, row] = self.number
        first, *entries = line.split()
        if first != word:
            raise self.error(f"expected the bank '{word} {letter}0=...', got '{line}'")
        if not entries:
            raise self.error(f"the bank needs at least one value: {word} {letter}0=8")
        values: list[_Number] = []
        for index, entry in enumerate(entries):
            label, _, value = entry.partition("=")
            if label != f"{letter}{index}":
                raise self.error(f"expected {letter}{index}=VALUE in the bank, got '{entry}'")
            values.append(read(str(self.banks.get(label, value))))
        return tuple(values)

    def every(self) -> int:
        line = self.next()
        self.places[BANKS, 3] = self.number
        value = line.removeprefix("every").strip()
        if value not in _EVERY:
            raise self.error(f"cannot read '{line}'; allowed after every: {', '.join(_EVERY)}")
        return _EVERY[value]

    def constant(self, text: str, dims: tuple[int, ...]) -> float:
        try:
            return resolve(text, dims, self.d_model)
        except ProgramError as fault:
            raise self.error(str(fault)) from None

    def whole(self, text: str) -> int:
        if not text.isdecimal() or len(text) > _DIGITS:
            raise self.error(f"'{text}' is not a whole number")
        return int(text)

    def subroutine(self, index: int) -> Subroutine:
        """A header and the instructions below it, as far as the next header."""
        self.number, line, header = self.lines.popleft()
        if not header:
            raise self.error(f"expected a subroutine's header, NAME(X, Y):, got '{line}'")
        self.places[index, HEADER] = self.number
        name, states = header["name"], [header["x"], header["y"]]
        instructions: list[Instruction] = []
        while self.lines and not self.lines[0][2]:
            line = self.next()
            self.places[index, len(instructions)] = self.number
            instructions.append(self.instruction(line, name, states))
        return Subroutine(name, tuple(instructions), tuple(states))

    def instruction(self, line: str, name: str, states: list[str]) -> Instruction:
        match = _LINE.match(line)
        if not match:
            raise self.error(f"cannot read '{line}'; {_FORM}")
        if match["state"] in states:
            raise self.error(f"hidden state '{match['state']}' of '{name}' is made twice")
        in1 = self.state(match["x"], states)
        in2 = in1 if match["y"] is None else self.state(match["y"], states)
        fields = self.fields(match["fields"])
        instruction = Instruction(self.op(match["op"], name), in1, in2, **fields)
        states.append(match["state"])
        return instruction

    def op(self, word: str, caller: str) -> str | int:
        if word in PRIMITIVES:
            return word
        if word not in self.callees:
            raise self.error(unknown("op", word, [*PRIMITIVES, *self.callees]))
        if self.callees[word] <= self.callees[caller]:
            raise self.error(f"'{caller}' may only call subroutines below it; '{word}' is not")
        return self.callees[word]

    def state(self, word: str, states: list[str]) -> int:
        if word not in states:
            raise self.error(unknown("hidden state", word, states))
        return states.index(word)

    def fields(self, text: str) -> dict[str, int]:
        result: dict[str, int] = {}
        for entry in text.split():
            key, _, value = entry.partition("=")
            letter = _LETTERS.get(key)
            if letter is None or key in result:
                raise self.error(f"cannot read field '{entry}'; {_FORM}")
            if key == "branch":
                result[key] = self.branch(value)
                continue
            digits = value.removeprefix(letter)
            if not digits.isdecimal() or len(digits) > _DIGITS or digits == value:
                raise self.error(f"cannot read field '{entry}'; expected {key}={letter}N")
            result[key] = int(digits)
        return result

    def branch(self, value: str) -> int:
        known = {**{str(number): number for number in BRANCHES}, **_BRANCH_WORDS}
        if value not in known:
            raise self.error(unknown("branch", value, known))
        return known[value]

    def error(self, fault: str) -> ProgramError:
        return ProgramError(f"{self.source}:{self.number}: {fault}")
