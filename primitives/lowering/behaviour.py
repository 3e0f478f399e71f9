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
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from functools import cache, lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from primitives.graph.build import CONCAT, INPUT, Graph, Node
from primitives.lowering.dispatch import weight_shape
from primitives.lowering.expression import Name
from primitives.lowering.operation import operation
from primitives.lowering.render import source
from primitives.lowering.rotary import with_rotated
from primitives.lowering.weights import has_weight
from primitives.ops.primitive import Init
from primitives.ops.table import PRIMITIVES
from primitives.ops.types import StateType

Array = npt.NDArray[np.float64]

D_MODEL = 16
"""Two channels a unit: of one, a mean would be the identity."""

_LENGTH = 5
_SIZES = (0.02, 0.3, 1.0, 6.0)
_MEANS = (0.0, 0.05, -0.5, 0.0)

DIGITS = 1e6
"""Results that agree to a millionth of their position's largest value are taken to be the same."""


_NOTHING = 1e-9
"""Values below, and below so many of the largest, are what rounding leaves of zero."""


def behaviour(graph: Graph, rotary: bool = False) -> str | None:
    """The digest of what a program computes, and in which blocks it runs; `rotary` is whether its
    products of two sequences read rotated states. None where it cannot be
    told: programs that route, draw random numbers or act in training alone, primitives whose code
    is not run here, and results that are not finite."""
    if not all(map(_known, graph.ops)):
        return None
    try:
        with np.errstate(all="ignore"):
            result = evaluated(graph, rotary)
    except (AttributeError, NameError):  # code of a plug-in that calls what is not run here
        return None
    if result is None or not np.isfinite(result).all():
        return None
    return hashlib.blake2b(_seen(result) + bytes((graph.every,)), digest_size=16).hexdigest()


def evaluated(
    graph: Graph, rotary: bool = False, given: Callable[[int], Array] | None = None
) -> Array | None:
    """The block's output on the fixed inputs, [sequence, position, channel]. `given` may say what
    weight number i is, in canonical order; None where a weight would meet what is not finite."""
    nodes = with_rotated(graph.nodes) if rotary else graph.nodes
    values, drawn = list[Array](), Counter[bytes]()
    number = 0
    for node in nodes:
        if node.op == INPUT:
            values.append(fixed_inputs())
            continue
        inputs = [nodes[child] for child in node.inputs]
        read, weight = [values[child] for child in node.inputs], None
        if has_weight(node):
            if given is not None:
                weight = given(number)
            elif (weight := _weight(node, inputs[0].type, read[0], drawn)) is None:
                return None
            number += 1
        kinds = tuple((child.op == "MASK", child.type) for child in inputs)
        function = _function(node.op, node.value, node.context, node.count, node.type, kinds)
        values.append(function(read, weight))
    return values[-1]


def _known(op: str) -> bool:
    """Whether a node's results follow from its inputs and weights, in training as in evaluation."""
    if op in (INPUT, CONCAT):
        return True
    row = PRIMITIVES.get(op)
    if row is None or row.routing or row.random or row.training or row.functions:
        return False
    return row.weight is None or row.weight.trainable


@cache
def fixed_inputs() -> Array:
    noise = np.random.default_rng(0).standard_normal((len(_SIZES), _LENGTH, D_MODEL))
    sizes, means = (np.array(values)[:, None, None] for values in (_SIZES, _MEANS))
    made: Array = noise * sizes + means
    return made


def _seen(x: Array) -> bytes:
    """What two arrays share that are equal but for rounding: each position's values over its
    largest one, and the size of that. Each position counts, though others be far larger."""
    size = np.abs(x).max(axis=-1, keepdims=True)
    nothing = size < max(_NOTHING, _NOTHING * float(size.max()))
    size[nothing] = 1.0
    scaled = np.where(nothing, 0.0, x / size)
    parts = np.rint(scaled * DIGITS), np.rint(np.log(size) * DIGITS)
    return b"".join(part.astype(np.int64).tobytes() for part in parts)


def _weight(node: Node, kind: StateType, x: Array, drawn: Counter[bytes]) -> Array | None:
    """The weight of a node that reads `x`, of type `kind`. `drawn` counts those that were drawn for
    equal inputs before."""
    if not np.isfinite(x).all():
        return None
    shape = weight_shape(node.op, kind, node.type, D_MODEL)
    full = (*node.context, *shape)
    key = hashlib.blake2b(_seen(x) + repr((node.op, full)).encode(), digest_size=8).digest()
    drawn[key] += 1
    place = int.from_bytes(key, "little") + 7919 * drawn[key]
    pool = _normals()
    start, size = place % len(pool), int(np.prod(full))
    noise = np.take(pool, range(start, start + size), mode="wrap").reshape(full)
    row = PRIMITIVES[node.op].weight
    assert row is not None
    return _started(row.init, noise, int(np.prod(shape[:-1])))


@cache
def _normals() -> Array:
    """Normal numbers, of which weights are cut: a generator for each weight would cost more than
    the rest."""
    return np.random.default_rng(1).standard_normal(65_537)


def _started(init: Init, noise: Array, fan_in: int) -> Array:
    """A weight that has moved some way from where it starts."""
    if init == "fan_in":
        made: Array = noise / fan_in**0.5
        return made
    start = np.zeros_like(noise)
    if init == "ones":
        start += 1.0
    elif init == "causal":
        start += 0.5 / noise.shape[-2]
        start[..., -1, :] = 0.5
    return start + 0.3 * noise


@lru_cache(maxsize=1 << 14)
def _function(
    op: str,
    value: float,
    context: tuple[int, ...],
    count: int,
    made: StateType,
    inputs: tuple[tuple[bool, StateType], ...],
) -> Callable[[list[Array], Array | None], Array]:
    """A node as a function of what it reads and its weight. Of the inputs it matters what type they
    have, and whether MASK made them."""
    nodes = [Node("MASK" if masked else INPUT, (), 0, (), kind, "") for masked, kind in inputs]
    own = Node(op, tuple(range(len(nodes))), value, context, made, "", count)
    names = [f"read[{place}]" for place in range(len(nodes))]
    code = source(operation(nodes, own, names, Name("weight") if has_weight(own) else None))
    function: Callable[[list[Array], Array | None], Array]
    function = eval(f"lambda read, weight: {code}", _NAMES)
    return function


def _hide(x: Array, fill: float) -> Array:
    position = np.arange(x.shape[-1])
    return np.where(position <= position[:, None], x, fill)


def _visible_mean(x: Array) -> Array:
    made: Array = x.sum(axis=-1, keepdims=True) / np.arange(1.0, x.shape[-1] + 1)[:, None]
    return made


def _project(x: Array, kernel: Array) -> Array:
    """Of branch axes, x has the first ones that the kernel has, or all, or, where they share it,
    more."""
    missing = kernel.ndim - 2 - (x.ndim - 3)
    if missing < 0:
        kernel = kernel.reshape(*kernel.shape[:-2], *(1,) * -missing, *kernel.shape[-2:])
    made: Array = x.reshape(*x.shape[:-2], *(1,) * missing, *x.shape[-2:]) @ kernel
    return made


def _rotated(x: Array) -> Array:
    half = x.shape[-1] // 2
    if half == 0:
        return x
    angle = np.arange(x.shape[-2])[:, None] * 10000.0 ** (-np.arange(half) / half)
    cos, sin = np.cos(angle), np.sin(angle)
    one, other, odd = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return np.concatenate([one * cos - other * sin, one * sin + other * cos, odd], axis=-1)


def _windows(x: Array, taps: int) -> list[Array]:
    padded = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(taps - 1, 0), (0, 0)])
    return [padded[..., tap : tap + x.shape[-2], :] for tap in range(taps)]


def _conv(x: Array, kernel: Array) -> Array:
    *branches, taps, n, m = kernel.shape
    window = np.concatenate(_windows(x, taps), axis=-1)
    return _project(window, kernel.reshape(*branches, taps * n, m))


def _depthwise_conv(x: Array, kernel: Array) -> Array:
    parts = [
        row * kernel[..., tap, None, :] for tap, row in enumerate(_windows(x, kernel.shape[-2]))
    ]
    made: Array = np.sum(parts, axis=0)
    return made


def _merge_branches(x: Array, n: int) -> Array:
    if x.shape[-3] == 1:
        return _repeat_features(x[..., 0, :, :], n)
    *outer, branches, length, size = x.shape
    return x.swapaxes(-3, -2).reshape(*outer, length, branches * size)


def _repeat_features(x: Array, n: int) -> Array:
    return np.concatenate([x] * n, axis=-1)


_OPS = (
    "abs", "add", "cos", "cumprod", "cumsum", "divide", "exp", "log", "matmul", "max", "maximum",
    "mean", "min", "minimum", "multiply", "prod", "sign", "sin", "sqrt", "square", "subtract",
    "sum", "swapaxes", "tanh",
)  # fmt: skip
"""Functions of keras.ops that rows call and that NumPy has under the same name."""

_NAMES: dict[str, Any] = {
    "ops": SimpleNamespace(
        **{name: getattr(np, name) for name in _OPS}, sigmoid=lambda x: 1 / (1 + np.exp(-x))
    ),
    "hide": _hide,
    "visible_mean": _visible_mean,
    "reciprocal": lambda x: np.divide(1.0, x, out=np.zeros_like(x), where=x != 0),
    "project": _project,
    "conv": _conv,
    "depthwise_conv": _depthwise_conv,
    "merge_branches": _merge_branches,
    "repeat_features": _repeat_features,
    "rotated": _rotated,
}
"""What rows' code calls: keras.ops, and the kernels of `primitives.kernels` that dense programs
use."""
