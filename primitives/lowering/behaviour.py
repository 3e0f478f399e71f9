"""What a graph does: its results on fixed inputs with fixed weights, as a digest.

Programs with different graphs often compute one function: |x| of what is positive, a floor under a
square that never binds, MASK before or after EXP, another scale of scores that nothing reads. Their
hashes differ, and their digests are equal. (AutoML-Zero, Real et al. 2020, and Lion, Chen et al.
2023, save most of their evaluations so.)

The code of the primitives' rows is run in NumPy, node by node, in double precision: four sequences
of 5 positions and 16 channels, whose values are of the order of 0.02, 0.3, 1 and 6. A weight is
drawn for what its node reads and for its shape, whatever the numbering of the nodes, so that one
more operation that changes nothing leaves all weights as they are; of several that read the same,
the order counts. No weight is at its start, so that SCALE is not the identity.

A child shares most of what comes before its mutation with its parent and siblings, so the last few
thousand states are kept, and found again by what made them.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from functools import cache, cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from primitives.graph.build import INPUT, Graph, Node
from primitives.lowering.dispatch import weight_shape
from primitives.lowering.numeric import NotRun, function_of, is_known, run, source_of, started
from primitives.lowering.rotary import with_rotated
from primitives.lowering.weights import has_weight
from primitives.ops.primitive import Init
from primitives.ops.state import StateType
from primitives.ops.table import PRIMITIVES

Array = npt.NDArray[np.float64]

D_MODEL = 16
"""Two channels a unit: of one, a mean would be the identity."""

_LENGTH = 5
_SIZES = (0.02, 0.3, 1.0, 6.0)
_MEANS = (0.0, 0.05, -0.5, 0.0)

DIGITS = 1e6
"""Results that agree to a millionth of their position's largest value are taken to be the same."""

MOVED = 0.3
"""How far weights are from their start, in standard normal numbers."""

KEPT = 1 << 12
"""States that are kept: those of about a hundred programs, some 50 MB at the most."""

_NOTHING = 1e-9
"""Values below, and below so many of the largest, are what rounding leaves of zero."""


class Made:
    """What a node made, an operation `op` a state of this type. Equal to itself alone, so that it
    is looked up fast."""

    def __init__(self, array: Array, op: str, type: StateType) -> None:
        self.array, self.type, self.source = array, type, source_of(op, type)

    @cached_property
    def seen(self) -> bytes | None:
        return _seen(self.array)


class Drawing(NamedTuple):
    """A weight that is not drawn yet: its shape with branch axes, how it starts, how many inputs
    one of its outputs sums, and where in the series of normal numbers it begins."""

    shape: tuple[int, ...]
    init: Init
    fan_in: int
    place: int


def behaviour(graph: Graph, rotary: bool = False) -> str | None:
    """The digest of what a program computes, and in which blocks it runs; `rotary` is whether its
    products of two sequences read rotated states. None where it cannot be
    told: programs that route, draw random numbers or act in training alone, or mark what is
    remembered, primitives whose code is not run here, and results that are not finite."""
    if not is_known(graph):
        return None
    try:
        with np.errstate(all="ignore"):
            result = _result(graph, rotary)
            seen = None if result is None else result.seen
    except NotRun:
        return None
    if seen is None:
        return None
    return hashlib.blake2b(seen + bytes((graph.every,)), digest_size=16).hexdigest()


def evaluated(graph: Graph, rotary: bool = False) -> Array | None:
    """The block's output on the fixed inputs, [sequence, position, channel]; None where a weight
    would meet what is not finite."""
    result = _result(graph, rotary)
    return None if result is None else result.array


def _result(graph: Graph, rotary: bool) -> Made | None:
    nodes = with_rotated(graph.nodes) if rotary else graph.nodes
    states, drawn = list[Made](), Counter[Drawing]()
    for node in nodes:
        if node.op == INPUT:
            states.append(_input(node))
            continue
        op, _, value, context, kind, _, count, *_ = node
        read, drawing = tuple([states[child] for child in node.inputs]), None
        if has_weight(node):
            drawing = _drawing(op, context, kind, read[0])
            if drawing is None:
                return None
            drawn[drawing] += 1
            shape, init, fan_in, place = drawing
            drawing = Drawing(shape, init, fan_in, place + 7919 * drawn[drawing])
        states.append(_applied(op, value, context, kind, count, read, drawing))
    return states[-1]


@lru_cache(maxsize=KEPT)
def _applied(
    op: str,
    value: float,
    context: tuple[int, ...],
    kind: StateType,
    count: int,
    read: tuple[Made, ...],
    drawing: Drawing | None,
) -> Made:
    weight = None
    if drawing is not None:
        shape, init, fan_in, place = drawing
        weight = started(init, shape, math.prod(shape), fan_in, place, MOVED)
    function = function_of(op, value, context, count, kind, tuple([each.source for each in read]))
    return Made(run(function, [each.array for each in read], weight), op, kind)


@cache
def fixed_inputs() -> Array:
    noise = np.random.default_rng(0).standard_normal((len(_SIZES), _LENGTH, D_MODEL))
    sizes, means = (np.array(values)[:, None, None] for values in (_SIZES, _MEANS))
    made: Array = noise * sizes + means
    return made


@cache
def _input(node: Node) -> Made:
    return Made(fixed_inputs(), node.op, node.type)


def _seen(x: Array) -> bytes | None:
    """What two arrays share that are equal but for rounding: each position's values over its
    largest one, and the size of that. Each position counts, though others be far larger. None where
    not all values are finite."""
    size = np.maximum.reduce(np.abs(x), axis=-1, keepdims=True)
    largest = float(size.max())
    if not math.isfinite(largest):
        return None
    least = max(_NOTHING, _NOTHING * largest)
    if size.min() >= least:
        scaled = x / size
    else:
        nothing = size < least
        size[nothing] = 1.0
        scaled = np.where(nothing, 0.0, x / size)
    return _rounded(scaled) + _rounded(np.log(size))


def _rounded(x: Array) -> bytes:
    """In millionths; x is written to."""
    x *= DIGITS
    return np.rint(x, out=x).astype(np.int64).tobytes()


@lru_cache(maxsize=KEPT)
def _drawing(op: str, context: tuple[int, ...], kind: StateType, read: Made) -> Drawing | None:
    """The weight of the first node that does this with a state; None if that is not finite."""
    if read.seen is None:
        return None
    shape = weight_shape(op, read.type, kind, D_MODEL)
    full = (*context, *shape)
    key = hashlib.blake2b(read.seen + repr((op, full)).encode(), digest_size=8).digest()
    row = PRIMITIVES[op].weight
    assert row is not None
    return Drawing(full, row.init, math.prod(shape[:-1]), int.from_bytes(key, "little"))
