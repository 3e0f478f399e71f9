"""A program checked, inlined and brought to canonical form.

`build` turns a DNA into the graph of what it computes, or into the reason why it computes nothing:
calls are inlined once per call site (a branched or routed one under one more branch axis), silent
genes and dead instructions are never visited, bank values take the place of indices, equal
weightless nodes are one node, and commutative inputs and the numbering follow from structure alone.
Two programs with equal hashes compute the same function of the same weights in the same order.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from primitives.graph.liveness import TRAITS, liveness
from primitives.language.dna import DNA, INPUTS, ROUTED
from primitives.ops.table import PRIMITIVES, infer
from primitives.ops.types import (
    BLOCK,
    ENTRIES,
    Inferred,
    StateType,
    combine,
    concatenation,
    dispatch,
)

INPUT = "INPUT"
CONCAT = "CONCAT"
DISPATCH = "DISPATCH"
COMBINE = "COMBINE"
"""The ops that a graph has beside the primitives: the block's input; the results of a branched
instruction side by side on the feature axis; and around what a routed call's subroutine does,
tokens to their experts' buffers and the experts' results back, summed by gate."""

_INDEXING = ("TOP_K", "PAIR", "HASH", "ASSIGN", CONCAT)
"""Where a sparse state's indices are made; what else gives one keeps those that it read."""

MAX_STEPS = 4096
"""Calls and instructions that inlining may run: nested calls can grow exponentially."""


class Node(NamedTuple):
    """One operation. `inputs` are positions of earlier nodes; `value` is the constant (C MUL, MAX,
    MIN), the dim in units (CONV) or the number of branches (CONCAT), else 0; `context` holds the
    branch axes of the weights, or of a DISPATCH, or those that a CONCAT leaves (which tell whether
    it joins branches or repeats), else (); `name` is where the program says it; `count` is the
    count that an op reads, else 0; `support` is the position of the node that made a sparse state's
    indices, else -1."""

    op: str
    inputs: tuple[int, ...]
    value: float
    context: tuple[int, ...]
    type: StateType
    name: str
    count: int = 0  # type: ignore[assignment]  # nobody counts a node's fields
    support: int = -1


class Graph:
    """The canonical form of a program that type-checks.

    `hash` is 128 bits in hexadecimal; it covers `every`, which blocks run the program. `nodes` are
    in canonical order, the block's input first and its output last; they are made when first asked
    for, as most candidates need only their hash."""

    __slots__ = ("_inlined", "_nodes", "_order", "every", "hash")

    def __init__(self, inlined: _Inlined, output: int) -> None:
        self._inlined = inlined
        self.every = inlined.dna.every
        self._order, self.hash = inlined.canonical(output)
        self._nodes: tuple[Node, ...] | None = None

    @property
    def ops(self) -> set[str]:
        """Which operations the program has."""
        return {self._inlined.tags[node].op for node in self._order}

    @property
    def nodes(self) -> tuple[Node, ...]:
        if self._nodes is None:
            self._nodes = self._inlined.nodes(self._order)
        return self._nodes


@dataclass(frozen=True, slots=True)
class IllTyped:
    """Why a program has no type: `where` is SUBROUTINE.STATE, with the calls around it."""

    reason: str
    where: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


def build(dna: DNA, bidirectional: bool = False) -> Graph | IllTyped:
    """The canonical graph of a well-formed DNA, or why its live part does not type-check.

    In a `bidirectional` task every position may see every other one.
    """
    inlined = _Inlined(dna)
    try:
        output = inlined.call(0, 0, 0, ())
    except _TypeFault as fault:
        calls = [inlined.name(index, position) for index, position in reversed(fault.places)]
        return IllTyped(fault.reason, " > ".join(calls))
    made = inlined.types[output]
    if made != BLOCK:
        return IllTyped(f"the block must give {BLOCK}, this one gives {made}", "main")
    return Graph(inlined, output)


def sees_future(graph: Graph) -> str:
    """Why the program's evaluation would compare a token with later ones; empty where it does
    not."""
    return next((reason for op, reason in _FUTURE.items() if op in graph.ops), "")


class _TypeFault(Exception):
    """Carries a reason up through the calls, each of which adds the place where it stands."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.places: list[tuple[int, int]] = []


_MASK64 = (1 << 64) - 1
_RANKS = tuple(struct.pack("<H", rank) for rank in range(2 * MAX_STEPS + 1))
"""Numbers of nodes: a step makes two at most, the op's and the CONCAT of a branched one."""


_FUTURE = {name: row.future for name, row in PRIMITIVES.items() if row.future}
_COMMUTES = {name for name, row in PRIMITIVES.items() if row.commutative}


class _Tag(NamedTuple):
    """All that a node is apart from its inputs; as bytes to hash, which tell their own length; and
    as a number to order commutative inputs by."""

    op: str
    value: float
    context: tuple[int, ...]
    text: bytes
    number: int
    count: int  # type: ignore[assignment]


@lru_cache(maxsize=1 << 16)
def _tag(op: str, value: float, context: tuple[int, ...], count: int = 0) -> _Tag:
    code = zlib.crc32(op.encode())
    if count or min(context, default=0) < 0:
        sizes = struct.pack(f"<{2 + len(context)}i", -1 - len(context), count, *context)
    else:
        sizes = bytes((len(context), *context))
    text = struct.pack("<Id", code, value) + sizes
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return _Tag(op, value, context, text, int.from_bytes(digest, "little"), count)


@lru_cache(maxsize=1 << 16)
def _typed(
    op: str, value: float, context: tuple[int, ...], x: StateType, y: StateType, count: int = 0
) -> tuple[Inferred, _Tag]:
    """The type of a primitive's result, or why it has none, and the tag of its node."""
    traits = TRAITS[op]
    size = int(value) if traits.sized else count
    return infer(op, x, y, size, context), _tag(op, value, context, count)


class _Inlined:
    """Nodes in the order in which inlining makes them, as parallel lists; node 0 is the input.

    This is the hot path of a search: a child is inlined and hashed before anything else is known of
    it, thousands of times a second.

    `structure` is a number for each node that follows from what it computes, but not from which of
    several equal weights it has: commutative inputs are ordered by it.
    """

    def __init__(self, dna: DNA) -> None:
        self.dna = dna
        self.live = liveness(dna)
        self.inputs: list[tuple[int, ...]] = [()]
        self.tags: list[_Tag] = [_tag(INPUT, 0, ())]
        self.types: list[StateType] = [BLOCK]
        self.structure: list[int] = [0]
        self.places: list[tuple[int, int]] = [(-1, -1)]
        self.known: dict[tuple[object, ...], int] = {}
        self.supports: dict[int, int] = {}
        self.steps = 0

    def call(self, index: int, x: int, y: int, context: tuple[int, ...]) -> int:
        """Inlines subroutine `index` on nodes x and y; gives the node of its value."""
        instructions = self.dna.subroutines[index].instructions
        states = [x, y] + [0] * len(instructions)
        self.steps += 1 + len(instructions)
        if self.steps > MAX_STEPS:
            raise _TypeFault(f"inlining takes more than {MAX_STEPS} steps; call fewer subroutines")
        place = (index, -1)
        try:
            for position, op, in1, in2, branch, value, size in self.live[index].steps:
                place = (index, position)
                if branch == ROUTED:
                    node = self.routed(op, states[in1], states[in2], context, place)
                    states[INPUTS + position] = node
                    continue
                inner = context if branch == 1 else (*context, branch)
                if op.__class__ is int:
                    made = len(self.places)
                    node = self.call(op, states[in1], states[in2], inner)
                    if node >= made and branch == 1:
                        self.places[node] = place  # the caller's name says more than the callee's
                else:
                    x, y = states[in1], states[in2]
                    node = self.primitive(op, x, y, value, size, inner, place)  # type: ignore[arg-type]
                if branch != 1:
                    node = self.concatenate(node, len(context), branch, place)
                states[INPUTS + position] = node
        except _TypeFault as fault:
            fault.places.append(place)
            raise
        return states[-1]

    def primitive(
        self, name: str, x: int, y: int, value: float, size: int, context: tuple[int, ...],
        place: tuple[int, int],
    ) -> int:  # fmt: skip
        binary, commutative, weighted, _, _, _, unread = TRAITS[name]
        types = self.types
        if weighted:
            made, tag = _typed(name, value, context, types[x], BLOCK, size)
            if made.__class__ is str:
                raise _TypeFault(made)
            return self.add((x,), tag, made, place)  # type: ignore[arg-type]
        if name == "TAKE":
            y = self.supports.get(y, y)  # its indices are all that matters
        if binary:
            inputs: tuple[int, ...] = (y, x) if commutative and y < x else (x, y)
        else:
            x = 0 if unread else x
            inputs, y = (x,), x
        key = (name, inputs, value, size)
        node = self.known.get(key)
        if node is None:
            made, tag = _typed(name, value, (), types[x], types[y], size)
            if made.__class__ is str:
                raise _TypeFault(made)
            if binary and types[x].axis == types[y].axis == ENTRIES:
                self.same_entries(name, x, y)
            again = made is types[x] and name == "MASK"  # a closed state stays as it is
            node = x if again else self.add(inputs, tag, made, place)  # type: ignore[arg-type]
            self.known[key] = node
        return node

    def same_entries(self, name: str, x: int, y: int) -> None:
        if name not in _INDEXING and name != "TAKE" and self.supports[x] != self.supports[y]:
            raise _TypeFault(f"{name} joins sparse states of different indices; TAKE reads at them")

    def routed(
        self, op: str | int, x: int, gates: int, context: tuple[int, ...], place: tuple[int, int]
    ) -> int:
        """Inlines a routed call between the DISPATCH of its tokens and the COMBINE of results. The
        former reads the gates' indices alone, and nothing of gates for all experts."""
        if op.__class__ is str:
            raise _TypeFault(f"only a call of a subroutine can be routed, not {op}")
        kind = self.types[gates]
        made = dispatch(self.types[x], kind, context)
        if isinstance(made, str):
            raise _TypeFault(made)
        inputs = (x, self.supports[gates]) if kind.axis == ENTRIES else (x,)
        key = (DISPATCH, *inputs, made)
        tokens = self.known.get(key)
        if tokens is None:
            tag = _tag(DISPATCH, 0, made.branches)
            tokens = self.known[key] = self.add(inputs, tag, made, place)
        value = self.call(op, tokens, tokens, made.branches)  # type: ignore[arg-type]
        result = combine(self.types[value], made.branches)
        if isinstance(result, str):
            raise _TypeFault(result)
        key = (COMBINE, value, gates)
        node = self.known.get(key)
        if node is None:
            tag = _tag(COMBINE, 0, made.branches)
            node = self.known[key] = self.add((value, gates), tag, result, place)
        return node

    def concatenate(self, x: int, depth: int, branch: int, place: tuple[int, int]) -> int:
        key = (CONCAT, x, depth, branch)
        node = self.known.get(key)
        if node is None:
            made = concatenation(self.types[x], depth, branch)
            if isinstance(made, str):
                raise _TypeFault(made)
            tag = _tag(CONCAT, branch, made.branches)
            node = self.known[key] = self.add((x,), tag, made, place)
        return node

    def add(
        self, inputs: tuple[int, ...], tag: _Tag, made: StateType, place: tuple[int, int]
    ) -> int:  # fmt: skip
        structure = self.structure
        if len(inputs) == 1:
            mixed = tag.number + structure[inputs[0]] * 1_000_003
        else:
            first, second = structure[inputs[0]], structure[inputs[1]]
            if first > second and tag.op in _COMMUTES:
                inputs, first, second = (inputs[1], inputs[0]), second, first
            mixed = tag.number + first * 1_000_033 + second * 998_244_353
        structure.append(mixed & _MASK64)
        self.inputs.append(inputs)
        self.tags.append(tag)
        self.types.append(made)
        self.places.append(place)
        node = len(structure) - 1
        if made.axis == ENTRIES:
            self.supports[node] = node if tag.op in _INDEXING else self.read_support(inputs, tag)
        return node

    def read_support(self, inputs: tuple[int, ...], tag: _Tag) -> int:
        """Of a sparse state that has its indices from one that it reads."""
        sparse = inputs[-1] if tag.op == "TAKE" else next(i for i in inputs if i in self.supports)
        return self.supports[sparse]

    def canonical(self, output: int) -> tuple[list[int], str]:
        """The nodes that `output` depends on, inputs before readers, and their hash.

        The order is that of a walk from the output, and so says nothing of how the program was
        written, except where commutative inputs have equal structures: equal programs may then, if
        rarely, differ in hash. Different ones never share one.
        """
        inputs, tags = self.inputs, self.tags
        ranks = [-1] * len(inputs)
        order: list[int] = []
        parts: list[bytes] = []
        pending = [output]
        while pending:
            node = pending.pop()
            if node < 0:
                node = ~node
                ranks[node] = len(order)
                order.append(node)
                parts.append(tags[node].text)
                for child in inputs[node]:
                    parts.append(_RANKS[ranks[child]])
            elif ranks[node] == -1:
                ranks[node] = -2
                pending.append(~node)
                children = inputs[node]
                if len(children) == 2 and ranks[children[1]] == -1:
                    pending.append(children[1])
                if children and ranks[children[0]] == -1:
                    pending.append(children[0])
        if self.dna.every != 1:
            parts.append(b"every" + bytes((self.dna.every,)))
        return order, hashlib.blake2b(b"".join(parts), digest_size=16).hexdigest()

    def nodes(self, order: list[int]) -> tuple[Node, ...]:
        ranks = {node: rank for rank, node in enumerate(order)}
        supports = {node: ranks[made] for node, made in self.supports.items() if node in ranks}
        made = []
        for node in order:
            op, value, context, _, _, count = self.tags[node]
            inputs = tuple([ranks[child] for child in self.inputs[node]])
            name, support = self.name(*self.places[node]), supports.get(node, -1)
            made.append(Node(op, inputs, value, context, self.types[node], name, count, support))
        return tuple(made)

    def name(self, index: int, position: int) -> str:
        if index < 0:
            return "x"
        subroutine = self.dna.subroutines[index]
        return f"{subroutine.name}.{subroutine.states[INPUTS + position]}"
