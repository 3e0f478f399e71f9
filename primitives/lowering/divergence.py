"""Whether training would diverge at once: what two blocks at their start make of one short text.

Two things ruin the first steps of a program, and both show in a forward pass with initial weights,
long before anything is compiled:

- Values grow out of bounds, as products over many channels or exponentials of sums do.
- A quotient's lower part, or what a logarithm or a root is taken of, crosses zero. Of the millions
  of values of a real batch some come so near to it that the gradient is not finite. Where there are
  few of them, that is left to chance, and the program is let pass.

The rewritten graph is run (`rewrite`), as what is trained is: its softmax never overflows, and its
norms divide by a root that has a floor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal, NamedTuple

import numpy as np

from primitives.graph.build import INPUT, Graph, Node
from primitives.lowering.dispatch import feature_size, weight_shape
from primitives.lowering.numeric import Array, State, applied, is_known, normals, started
from primitives.lowering.rewrite import lowered
from primitives.ops.primitive import Init
from primitives.ops.state import BLOCK, StateType
from primitives.ops.table import PRIMITIVES

Divergence = Literal["values grow out of bounds", "a singularity at zero"]

WIDTH = 32
LENGTH = 64
LAYERS = 2
"""Channels, positions and blocks of the probe at the most. More of them find little more; products
of matrices are small here (see `numeric.ONE_THREAD`)."""

KEPT = 1 << 11
"""States of the first block that are kept: those of about a hundred programs, some 50 MB."""

BOUND = 1e10
"""Of 848 programs that trained for some while on a GPU, none made values so large."""

MANY = 1e6
"""Of so many values of a batch, in all layers, that cross zero, some come too near to it. See
`tests.benchmarks.divergence`."""

_SINGULAR = {"DIVIDE": -1, "LOG": 0, "ABS ROOT": 0}
"""Operations with a pole of their value or gradient at zero, and which of their inputs that is."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The sizes that a program is trained at."""

    d_model: int
    sequence_length: int
    layers: int
    batch_size: int


class Made(State):
    """What a node of the probe makes, and whether it is bounded."""

    __slots__ = ("bounded",)

    def __init__(self, array: Array, op: str, type: StateType) -> None:
        super().__init__(array, op, type)
        self.bounded = _is_bounded(array) or (type.closed and _is_bounded(self.visible))

    @property
    def visible(self) -> Array:
        """The entries that exist: of a closed state, those up to each position."""
        if not self.type.closed:
            return self.array
        return self.array[..., np.tri(*self.array.shape[-2:], dtype=np.bool_)]


def _is_bounded(array: Array) -> bool:
    """Not so where one is no number. The sum of squares is what NumPy computes fastest; that of
    more numbers would take several threads."""
    values = array.ravel()
    if values.size <= 10_000 and values.dot(values) <= BOUND**2 / 2:
        return True
    return bool(np.abs(values).max() <= BOUND)


def divergence(graph: Graph, scale: Scale, rotary: bool = False) -> Divergence | None:
    """Why a program would diverge within its first steps; None where nothing speaks for it, and for
    programs that cannot be run here (`numeric.is_known`)."""
    if not is_known(graph):
        return None
    nodes = lowered(graph, rotary)
    x = _input(min(scale.d_model, WIDTH), min(scale.sequence_length, LENGTH))
    place = x.array.size
    try:
        with np.errstate(all="ignore"):
            for layer in range(LAYERS):
                states, place = _block(nodes, x, place, _made if layer else _kept)
                if not all(state.bounded for state in states):
                    return "values grow out of bounds"
                if any(_is_singular(node, states, scale) for node in nodes):
                    return "a singularity at zero"
                x = states[-1]
    except (AttributeError, NameError):  # code of a plug-in that calls what is not run here
        return None
    return None


@cache
def _input(width: int, length: int) -> Made:
    noise = normals((1, length, width), length * width, 0, "float32")
    return Made(noise * math.sqrt(2 / width), INPUT, BLOCK)


def _block(
    nodes: Sequence[Node], x: Made, place: int, make: Callable[..., Made]
) -> tuple[list[Made], int]:
    """What each node makes of the block's input, and the place after the last weight. Initial
    weights are cut, one after the other, from the normal numbers from `place` on."""
    width, states = x.array.shape[-1], list[Made]()
    for op, inputs, value, context, kind, _, count, _ in nodes:
        if op == INPUT:
            states.append(x)
            continue
        read = tuple([states[child] for child in inputs])
        weight = _weight(op, context, read[0].type, kind, width)
        if weight is None:
            states.append(make(op, value, context, kind, count, read, None, 0))
        else:
            states.append(make(op, value, context, kind, count, read, weight, place))
            place += weight.size
    return states, place


def _made(
    op: str,
    value: float,
    context: tuple[int, ...],
    kind: StateType,
    count: int,
    read: tuple[Made, ...],
    weight: _Weight | None,
    place: int,
) -> Made:
    array = None
    if weight is not None:
        noise = normals(weight.shape, weight.size, place, "float32")
        array = started(weight.init, noise, weight.fan_in)
    return applied(Made, op, value, context, kind, count, read, array)


_kept: Callable[..., Made] = lru_cache(maxsize=KEPT)(_made)
"""In the first block a child makes many of the states that its parent does."""


class _Weight(NamedTuple):
    """A weight's shape with branch axes, its size, how it starts, and how many inputs one of its
    outputs sums."""

    shape: tuple[int, ...]
    size: int
    init: Init
    fan_in: int


@lru_cache(maxsize=1 << 14)
def _weight(
    op: str, context: tuple[int, ...], read: StateType, made: StateType, width: int
) -> _Weight | None:
    row = PRIMITIVES.get(op)
    if row is None or row.weight is None:
        return None
    shape = weight_shape(op, read, made, width)
    full = (*context, *shape)
    return _Weight(full, math.prod(full), row.weight.init, math.prod(shape[:-1]))


def _is_singular(node: Node, states: Sequence[Made], scale: Scale) -> bool:
    """Whether the node has a pole at zero, and very many values of a batch are on both sides of it
    or at it."""
    if node.op not in _SINGULAR:
        return False
    read = states[node.inputs[_SINGULAR[node.op]]]
    if _count(read.type, scale) < MANY:
        return False
    return bool(read.visible.min() <= 0 <= read.visible.max())


def _count(state: StateType, scale: Scale) -> int:
    """How many values of this type a batch has, in all layers."""
    features = feature_size(state, scale.d_model, scale.sequence_length)
    a_layer = scale.batch_size * scale.sequence_length * math.prod(state.branches) * features
    return a_layer * scale.layers
