"""A program at its start, on one short text: a few blocks in NumPy, of which a node is run when its
values are first asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

from primitives.graph.build import INPUT, Node
from primitives.lowering.bounds import Bound, Terms, bound
from primitives.lowering.dispatch import feature_size, weight_shape
from primitives.lowering.numeric import (
    Array,
    Function,
    Source,
    function_of,
    hide,
    normals,
    run,
    source_of,
    started,
)
from primitives.ops.primitive import Init
from primitives.ops.state import BLOCK, StateType
from primitives.ops.table import PRIMITIVES

KEPT = 1 << 11
"""States of the first block that are kept: those of about a hundred programs, some 50 MB."""


class Sizes(NamedTuple):
    """Channels and positions of a probe."""

    width: int
    length: int


class Made:
    """What a node makes. Equal to itself alone, so that it is looked up fast."""

    __slots__ = ("array", "type")

    def __init__(self, array: Array, type: StateType) -> None:
        self.array, self.type = array, type

    @property
    def visible(self) -> Array:
        """The entries that exist: of a closed state, those up to each position."""
        if not self.type.closed:
            return self.array
        return self.array[..., np.tri(*self.array.shape[-2:], dtype=np.bool_)]

    @property
    def largest(self) -> float:
        """The largest absolute value that exists; not a number where one is none."""
        return float(np.abs(hide(self.array, 0.0) if self.type.closed else self.array).max())


class _Weight(NamedTuple):
    """A weight's shape with branch axes, its size, how it starts, and how many inputs one of its
    outputs sums."""

    shape: tuple[int, ...]
    size: int
    init: Init
    fan_in: int


class _Step:
    """A node without its place in a program: a function of states and a weight, the weight, a bound
    of the result, and whether it changes nothing at its start. Equal nodes have one step (`_step`),
    which is equal to itself alone."""

    __slots__ = ("bound", "function", "same", "size", "type", "weight")

    def __init__(
        self, type: StateType, function: Function, weight: _Weight | None, bound: Bound, same: bool
    ) -> None:
        self.type, self.function, self.weight, self.bound = type, function, weight, bound
        self.same = same
        self.size = 0 if weight is None else weight.size


@lru_cache(maxsize=1 << 14)
def _step(
    op: str,
    value: float,
    context: tuple[int, ...],
    kind: StateType,
    count: int,
    read: tuple[Source, ...],
    sizes: Sizes,
) -> _Step:
    first = read[0][1]
    weight = _weight(op, context, weight_shape(op, first, kind, sizes.width))
    fan_in = 0 if weight is None else weight.fan_in
    terms = Terms(value, feature_size(first, *sizes), sizes.length, fan_in)
    function = function_of(op, value, context, count, kind, read)
    same = op in ("SCALE", "SHIFT") and kind is first
    return _Step(kind, function, weight, bound(op, terms), same)


def _weight(op: str, context: tuple[int, ...], shape: tuple[int, ...]) -> _Weight | None:
    row = PRIMITIVES.get(op)
    if row is None or row.weight is None:
        return None
    full = (*context, *shape)
    return _Weight(full, math.prod(full), row.weight.init, math.prod(shape[:-1]))


class Program:
    """Nodes, of which the first one is the input, at some sizes.

    Attributes:
        steps: what each of the others does.
        inputs: the nodes that each one reads, the first one none. What changes nothing at its
            start, SCALE by 1 and SHIFT by 0, is passed over.
        places: for each of the others where its weight begins, among the normal numbers that
            initial weights are cut from one after the other.
        size: how many of these numbers they take.
    """

    def __init__(self, nodes: Sequence[Node], sizes: Sizes) -> None:
        self.sizes, self.size = sizes, 0
        self.steps, self.places = list[_Step](), list[int]()
        self.inputs: list[tuple[int, ...]] = [()]
        sources, alias = [source_of(INPUT, BLOCK)], [0]
        for op, inputs, value, context, kind, _, count, _ in nodes[1:]:
            read = tuple([sources[child] for child in inputs])
            sources.append(source_of(op, kind))
            step = _step(op, value, context, kind, count, read, sizes)
            alias.append(alias[inputs[0]] if step.same else len(alias))
            self.steps.append(step)
            self.inputs.append(tuple([alias[child] for child in inputs]))
            self.places.append(self.size)
            self.size += step.size
        self.output = alias[-1]

    def blocks(self, count: int) -> Iterator[Block]:
        """So many blocks, each on the output of the one before, whose `bounds` have all to be asked
        for first."""
        x = _input(self.sizes)
        block = Block(self, lambda: x, x.largest, x.array.size, _kept)
        yield block
        for _ in range(count - 1):
            block = Block(self, block.output, block.largest[-1], block.place + self.size, _made)
            yield block


@cache
def _input(sizes: Sizes) -> Made:
    width, length = sizes
    noise = normals((1, length, width), length * width, 0, "float32")
    return Made(noise * math.sqrt(2 / width), BLOCK)


class Block:
    """A program on an input, with the normal numbers from `place` on for initial weights.

    Attributes:
        largest: how large the values of each node are at the most, as far as `bounds` has come.
    """

    def __init__(
        self, program: Program, x: Callable[[], Made], largest: float, place: int, make: _Make
    ) -> None:
        self.program, self.place, self.largest = program, place, [largest]
        self._x, self._make = x, make
        self._states: list[Made | None] = [None] * (1 + len(program.steps))

    def bounds(self, proven: float) -> Iterator[float]:
        """How large the values of each node are at the most. Nodes of which the bound is no smaller
        than `proven` are run, which tells exactly."""
        largest, program = self.largest, self.program
        for node, step in enumerate(program.steps, 1):
            inputs = program.inputs[node]
            found = step.bound(largest[inputs[0]], largest[inputs[-1]])
            if not found <= proven:
                found = self.state(node).largest
            largest.append(found)
            yield found

    def output(self) -> Made:
        return self.state(self.program.output)

    def state(self, node: int) -> Made:
        """What a node makes. What it depends on is run first; not by recursion, as programs may be
        deep."""
        states, inputs, pending = self._states, self.program.inputs, [node]
        while pending:
            node = pending[-1]
            if states[node] is None:
                missing = [child for child in inputs[node] if states[child] is None]
                if missing:
                    pending += missing
                    continue
                states[node] = self._run(node)
            pending.pop()
        made = states[node]
        assert made is not None
        return made

    def _run(self, node: int) -> Made:
        """The state of a node whose inputs have theirs."""
        if node == 0:
            return self._x()
        program, states = self.program, self._states
        step, read = program.steps[node - 1], tuple([states[each] for each in program.inputs[node]])
        return self._make(step, read, self.place + program.places[node - 1] if step.size else 0)


def _made(step: _Step, read: tuple[Made, ...], place: int) -> Made:
    weight = None
    if step.weight is not None:
        shape, size, init, fan_in = step.weight
        weight = started(init, shape, size, fan_in, place, dtype="float32")
    return Made(run(step.function, [each.array for each in read], weight), step.type)


_Make = Callable[[_Step, tuple[Any, ...], int], Made]

_kept: _Make = lru_cache(maxsize=KEPT)(_made)
"""In the first block a child makes many of the states that its parent does."""
