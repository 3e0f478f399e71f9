"""A program checked, inlined and brought to canonical form.

`build` turns a DNA into the graph of what it computes, or into the reason why it computes nothing:
calls are inlined once per call site (a branched call once, under one more branch axis), silent
genes and dead instructions are never visited, bank values take the place of indices, equal
weightless nodes are one node, and commutative inputs and the numbering follow from structure alone.
Two programs with equal hashes compute the same function of the same weights in the same order.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass
from typing import NamedTuple

from primitives.dna import DNA, INPUTS
from primitives.table import PRIMITIVES, infer
from primitives.types import BLOCK, StateType, concatenation

INPUT = "INPUT"
CONCAT = "CONCAT"
"""The two ops that a graph has beside the primitives: the block's input, and the results of a
branched instruction side by side on the feature axis."""

MAX_STEPS = 4096
"""Calls and instructions that inlining may run: nested calls can grow exponentially."""


class Node(NamedTuple):
    """One operation. `inputs` are positions of earlier nodes; `value` is the constant (C MUL, MAX,
    MIN), the dim in units (CONV) or the number of branches (CONCAT), else 0; `context` holds the
    branch axes of the weights, or () where there are none; `name` is where the program says it."""

    op: str
    inputs: tuple[int, ...]
    value: float
    context: tuple[int, ...]
    type: StateType
    name: str


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes in canonical order, the block's input first and its output last; and their hash, 128
    bits in hexadecimal."""

    nodes: tuple[Node, ...]
    hash: str


@dataclass(frozen=True, slots=True)
class IllTyped:
    """Why a program has no type: `where` is SUBROUTINE.STATE, with the calls around it."""

    reason: str
    where: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


def build(dna: DNA) -> Graph | IllTyped:
    """The canonical graph of a well-formed DNA, or why its live part does not type-check."""
    inliner = _Inliner(dna)
    try:
        output = inliner.call(0, 0, 0, ())
    except _TypeFault as fault:
        return IllTyped(fault.reason, inliner.where())
    made = inliner.types[output]
    if made != BLOCK:
        return IllTyped(f"the block must give {BLOCK}, this one gives {made}", "main")
    return _canonical(inliner, output)


def live_instructions(dna: DNA) -> tuple[tuple[int, ...], ...]:
    """For each subroutine, the positions of the instructions that its value depends on."""
    return tuple(positions for positions, _ in _liveness(dna))


class _TypeFault(Exception):
    def __init__(self, reason: str) -> None:
        self.reason = reason


def _liveness(dna: DNA) -> list[tuple[tuple[int, ...], tuple[bool, bool]]]:
    """For each subroutine its live positions, and which of its two inputs its value reads."""
    result: list[tuple[tuple[int, ...], tuple[bool, bool]]] = [((), (False, False))] * len(
        dna.subroutines
    )
    for index in range(len(dna.subroutines) - 1, -1, -1):
        instructions = dna.subroutines[index].instructions
        needed = [False] * (INPUTS + len(instructions))
        needed[-1] = True
        live: list[int] = []
        for position in range(len(instructions) - 1, -1, -1):
            if not needed[INPUTS + position]:
                continue
            live.append(position)
            op, in1, in2, _, _, _ = instructions[position]
            if isinstance(op, str):
                needed[in1] = True
                if "in2" in PRIMITIVES[op].reads:
                    needed[in2] = True
            else:
                reads1, reads2 = result[op][1]
                needed[in1] |= reads1
                needed[in2] |= reads2
        live.reverse()
        result[index] = (tuple(live), (needed[0], needed[1]))
    return result


class _Inliner:
    """Nodes in the order in which inlining makes them, as parallel lists; node 0 is the input."""

    def __init__(self, dna: DNA) -> None:
        self.dna = dna
        self.live = _liveness(dna)
        self.ops: list[str] = [INPUT]
        self.inputs: list[tuple[int, ...]] = [()]
        self.values: list[float] = [0]
        self.contexts: list[tuple[int, ...]] = [()]
        self.types: list[StateType] = [BLOCK]
        self.places: list[tuple[int, int]] = [(-1, -1)]
        self.known: dict[tuple[object, ...], int] = {}
        self.stack: list[tuple[int, int]] = []
        self.steps = 0

    def call(self, index: int, x: int, y: int, context: tuple[int, ...]) -> int:
        """Inlines subroutine `index` on nodes x and y; gives the node of its value."""
        dna, stack = self.dna, self.stack
        instructions = dna.subroutines[index].instructions
        states = [x, y] + [0] * len(instructions)
        self.steps += 1 + len(instructions)
        if self.steps > MAX_STEPS:
            raise _TypeFault(f"inlining takes more than {MAX_STEPS} steps; call fewer subroutines")
        for position in self.live[index][0]:
            op, in1, in2, constant, dim, branch = instructions[position]
            stack.append((index, position))
            inner = context if branch == 1 else (*context, branch)
            if op.__class__ is int:
                node = self.call(op, states[in1], states[in2], inner)  # type: ignore[arg-type]
            else:
                node = self.primitive(op, states[in1], states[in2], constant, dim, inner)  # type: ignore[arg-type]
            if branch != 1:
                node = self.concatenate(node, len(context), branch)
            stack.pop()
            states[INPUTS + position] = node
        return states[-1]

    def primitive(
        self, name: str, x: int, y: int, constant: int, dim: int, context: tuple[int, ...]
    ) -> int:
        row, types = PRIMITIVES[name], self.types
        reads = row.reads
        value: float = 0
        if "dim" in reads:
            value = self.dna.dims[dim]
        elif "constant" in reads:
            value = self.dna.constants[constant]
        inputs: tuple[int, ...] = (x,)
        if "in2" in reads:
            inputs = (y, x) if row.commutative and y < x else (x, y)
        if row.weight is not None:
            made = infer(name, types[x], BLOCK, int(value), context)
            if made.__class__ is str:
                raise _TypeFault(made)  # type: ignore[arg-type]
            return self.add(name, inputs, value, context, made)  # type: ignore[arg-type]
        key = (name, inputs, value)
        node = self.known.get(key)
        if node is None:
            made = infer(name, types[x], types[inputs[-1]] if len(inputs) > 1 else BLOCK, 0, ())
            if made.__class__ is str:
                raise _TypeFault(made)  # type: ignore[arg-type]
            if name == "MASK" and types[x].closed:
                node = x
            else:
                node = self.add(name, inputs, value, (), made)  # type: ignore[arg-type]
            self.known[key] = node
        return node

    def concatenate(self, x: int, depth: int, branch: int) -> int:
        key = (CONCAT, x, depth, branch)
        node = self.known.get(key)
        if node is None:
            made = concatenation(self.types[x], depth, branch)
            if isinstance(made, str):
                raise _TypeFault(made)
            node = self.known[key] = self.add(CONCAT, (x,), branch, (), made)
        return node

    def add(
        self,
        op: str,
        inputs: tuple[int, ...],
        value: float,
        context: tuple[int, ...],
        made: StateType,
    ) -> int:
        self.ops.append(op)
        self.inputs.append(inputs)
        self.values.append(value)
        self.contexts.append(context)
        self.types.append(made)
        self.places.append(self.stack[-1])
        return len(self.ops) - 1

    def name(self, place: tuple[int, int]) -> str:
        index, position = place
        if index < 0:
            return "x"
        subroutine = self.dna.subroutines[index]
        return f"{subroutine.name}.{subroutine.states[INPUTS + position]}"

    def where(self) -> str:
        return " > ".join(self.name(place) for place in self.stack) or "main"


_CODES = {name: zlib.crc32(name.encode()) for name in (INPUT, CONCAT, *PRIMITIVES)}
_COMMUTES = {name for name, row in PRIMITIVES.items() if row.commutative}
_PRIME = (1 << 61) - 1


def _canonical(made: _Inliner, output: int) -> Graph:
    inputs, order = made.inputs, _order(made, output)
    number = {node: rank for rank, (node, _) in enumerate(order)}
    words: list[int] = []
    nodes: list[Node] = []
    for node, children in order:
        renumbered = tuple([number[child] for child in children])
        op, value, context = made.ops[node], made.values[node], made.contexts[node]
        words += (_CODES[op], len(renumbered), *renumbered, _bits(value), len(context), *context)
        nodes.append(
            Node(op, renumbered, value, context, made.types[node], made.name(made.places[node]))
        )
    del inputs
    digest = hashlib.blake2b(struct.pack(f"<{len(words)}q", *words), digest_size=16)
    return Graph(tuple(nodes), digest.hexdigest())


def _bits(value: float) -> int:
    """A number's own bits, so that equal numbers and only they are equal words."""
    bits: int = struct.unpack("<q", struct.pack("<d", value))[0]
    return bits


def _order(made: _Inliner, output: int) -> list[tuple[int, tuple[int, ...]]]:
    """Nodes that `output` depends on, each with its inputs in canonical order, inputs first."""
    structure = _structure(made)
    seen = bytearray(len(made.ops))
    order: list[tuple[int, tuple[int, ...]]] = []
    pending: list[tuple[int, tuple[int, ...] | None]] = [(output, None)]
    while pending:
        node, children = pending.pop()
        if children is not None:
            order.append((node, children))
            continue
        if seen[node]:
            continue
        seen[node] = 1
        children = made.inputs[node]
        if made.ops[node] in _COMMUTES and structure[children[0]] > structure[children[1]]:
            children = (children[1], children[0])
        pending.append((node, children))
        for child in reversed(children):
            if not seen[child]:
                pending.append((child, None))
    return order


def _structure(made: _Inliner) -> list[int]:
    """A number for each node that depends on nothing but its structure (not on which of several
    equal weights it has): the order of commutative inputs comes from it, identity never does."""
    result: list[int] = []
    for op, inputs, value, context in zip(
        made.ops, made.inputs, made.values, made.contexts, strict=True
    ):
        mixed = _CODES[op] * 1000003 + hash(value)
        for branch in context:
            mixed = mixed * 31 + branch
        below = [result[child] for child in inputs]
        if op in _COMMUTES:
            below.sort()
        for child in below:
            mixed = (mixed * 6364136223846793005 + child + 1442695040888963407) % _PRIME
        result.append(mixed % _PRIME)
    return result
