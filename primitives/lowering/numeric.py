"""Programs in NumPy: the code of the primitives' rows, node by node, in the precision of what they
are given. Nothing is compiled, so a tiny input takes microseconds a node.

States are [sequence, *branches, position, feature]. Programs that route, draw random numbers or act
in training alone are not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from primitives.graph.build import CONCAT, INPUT, Graph, Node
from primitives.lowering.expression import Name
from primitives.lowering.operation import operation
from primitives.lowering.render import source
from primitives.lowering.rewrite import SOFTMAX
from primitives.lowering.weights import has_weight
from primitives.ops.primitive import Init
from primitives.ops.state import StateType
from primitives.ops.table import PRIMITIVES

Array = npt.NDArray[Any]

Function = Callable[[Sequence[Array], Array | None], Array]
"""A node: what it makes of the states that it reads and its weight."""

ONE_THREAD = 1 << 18
"""Multiplications of a product of matrices from which OpenBLAS spreads it over threads. These would
wait for each other far longer than the product takes, above all where workers train beside."""


def is_known(graph: Graph) -> bool:
    """Whether results follow from inputs and weights, in training as in evaluation, by code that
    runs here. Of a plug-in's primitive that is seen when it is run (`NotRun`)."""
    return all(map(_known, graph.ops))


def _known(op: str) -> bool:
    if op in (INPUT, CONCAT):
        return True
    row = PRIMITIVES.get(op)
    if row is None or row.routing or row.marks or row.random or row.training or row.functions:
        return False
    return row.weight is None or row.weight.trainable


def results(nodes: Sequence[Node], x: Array, weights: Iterable[Array]) -> list[Array]:
    """What each node makes of the block's input x, with weights in the nodes' order."""
    values, following = list[Array](), iter(weights)
    for node in nodes:
        if node.op == INPUT:
            values.append(x)
            continue
        weight = next(following) if has_weight(node) else None
        values.append(_function_in(nodes, node)([values[child] for child in node.inputs], weight))
    return values


def _function_in(nodes: Sequence[Node], node: Node) -> Function:
    """A node as a function."""
    read = tuple([source_of(nodes[child].op, nodes[child].type) for child in node.inputs])
    return function_of(node.op, node.value, node.context, node.count, node.type, read)


class NotRun(Exception):
    """The code of a plug-in's primitive calls what is not known here."""


def run(function: Function, read: Sequence[Array], weight: Array | None) -> Array:
    """What the function makes. A NotRun says that its code cannot be run here."""
    try:
        return function(read, weight)
    except (AttributeError, NameError) as error:
        raise NotRun from error


Source = tuple[str, StateType]
"""What the code of a node depends on in a state that it reads."""


def source_of(op: str, type: StateType) -> Source:
    return op if op in _HIDING else INPUT, type


_HIDING = ("MASK", SOFTMAX)
"""What gives states whose invisible entries are 0: they need no filling (`operation.fill_of`)."""


@lru_cache(maxsize=1 << 14)
def function_of(
    op: str,
    value: float,
    context: tuple[int, ...],
    count: int,
    made: StateType,
    read: tuple[Source, ...],
) -> Function:
    """A node with these fields as a function of the states that it reads. Nodes that compute the
    same of states of the same types share one."""
    nodes = [Node(maker, (), 0, (), kind, "") for maker, kind in read]
    own = Node(op, tuple(range(len(nodes))), value, context, made, "", count)
    names = [f"read[{place}]" for place in range(len(nodes))]
    weight = Name("weight") if has_weight(own) else None
    return _compiled(source(operation(nodes, own, names, weight)))


@lru_cache(maxsize=1 << 12)
def _compiled(code: str) -> Function:
    """An expression of `read` and `weight` as a function. Nodes of many sizes have one code."""
    function: Function = eval(f"lambda read, weight: {code}", _NAMES)
    return function


@cache
def _normals(dtype: str) -> Array:
    """Normal numbers, of which weights are cut: a generator for each weight would cost more than
    the rest. They stand there twice, so that a cut may begin anywhere."""
    once = np.random.default_rng(1).standard_normal(65_537).astype(dtype)
    return np.concatenate([once, once])


def normals(shape: tuple[int, ...], size: int, place: int, dtype: str = "float64") -> Array:
    """An array of `size` normal numbers, which begin at number `place` of a fixed series."""
    pool = _normals(dtype)
    once = len(pool) // 2
    start = place % once
    if size <= once:
        return pool[start : start + size].reshape(shape)
    return np.take(pool, np.arange(start, start + size) % once).reshape(shape)


def started(
    init: Init,
    shape: tuple[int, ...],
    size: int,
    fan_in: int,
    place: int,
    moved: float = 0.0,
    dtype: str = "float64",
) -> Array:
    """A weight at its start, or, where that is not drawn, `moved` times normal numbers away from
    it. The numbers begin at `place` (`normals`). The array is not to be written to."""
    if init == "fan_in":
        made: Array = normals(shape, size, place, dtype) / fan_in**0.5
        return made
    start = _start(init, shape, dtype)
    return start + moved * normals(shape, size, place, dtype) if moved else start


@lru_cache(maxsize=1 << 10)
def _start(init: Init, shape: tuple[int, ...], dtype: str) -> Array:
    """The start of a weight that is not drawn."""
    start = np.full(shape, 1.0 if init == "ones" else 0.0, dtype)
    if init == "causal":
        start += 0.5 / shape[-2]
        start[..., -1, :] = 0.5
    return start


def hide(x: Array, fill: float) -> Array:
    """A closed state with its invisible entries set to a number."""
    return np.where(_visible(x.shape[-1]), x, x.dtype.type(fill))


@cache
def _visible(keys: int) -> Array:
    position = np.arange(keys)
    return position <= position[:, None]


@cache
def _hidden(keys: int, dtype: str) -> Array:
    """What finite scores need added, so that those of invisible keys are minus infinity."""
    return np.where(_visible(keys), 0.0, float("-inf")).astype(dtype)


def _visible_mean(x: Array) -> Array:
    count = np.arange(1, x.shape[-1] + 1, dtype=x.dtype)[:, None]
    made: Array = np.add.reduce(x, axis=-1, keepdims=True) / count
    return made


def _softmax(x: Array, axis: int = -1) -> Array:
    powers: Array = x - np.maximum.reduce(x, axis=axis, keepdims=True)
    np.exp(powers, out=powers)
    powers /= np.add.reduce(powers, axis=axis, keepdims=True)
    return powers


def _masked_softmax(x: Array) -> Array:
    return _softmax(hide(x, float("-inf")))


def _attention(q: Array, k: Array, v: Array, causal: bool) -> Array:
    """Keys and values may lack inner branch axes of the queries, which then share them."""
    k, v = _with_axes(k, q.ndim), _with_axes(v, q.ndim)
    scores = _matmul(q, k.swapaxes(-1, -2))
    if causal:
        scores += _hidden(scores.shape[-1], scores.dtype.char)
    return _matmul(_softmax(scores), v)


def _mean(x: Array, axis: int = -1, keepdims: bool = True) -> Array:
    """`np.mean`, which takes twice as long to be called. Every mean here keeps its axis."""
    assert keepdims
    made: Array = np.add.reduce(x, axis=axis, keepdims=True) / x.shape[axis]
    return made


def _centred(x: Array) -> Array:
    made: Array = x - _mean(x)
    return made


def _over_rms(x: Array, floor: float) -> Array:
    made: Array = x / np.sqrt(np.maximum(_mean(np.square(x)), floor))
    return made


def _project(x: Array, kernel: Array) -> Array:
    """Of branch axes, x has the first ones that the kernel has, or all, or, where they share it,
    more."""
    return _matmul(_with_axes(x, kernel.ndim + 1), _with_axes(kernel, x.ndim - 1))


def _matmul(x: Array, y: Array) -> Array:
    """x @ y, by so few columns of y at a time that each product stays in one thread."""
    columns = max(1, ONE_THREAD // (x.shape[-2] * x.shape[-1]))
    if y.shape[-1] <= columns:
        made: Array = x @ y
        return made
    starts = range(0, y.shape[-1], columns)
    return np.concatenate([x @ y[..., start : start + columns] for start in starts], axis=-1)


def _with_axes(x: Array, axes: int) -> Array:
    """x with so many axes at least, those that it lacks before its last two."""
    if x.ndim >= axes:
        return x
    return x.reshape(*x.shape[:-2], *(1,) * (axes - x.ndim), *x.shape[-2:])


def _rotated(x: Array) -> Array:
    half = x.shape[-1] // 2
    if half == 0:
        return x
    angle = np.arange(x.shape[-2])[:, None] * 10000.0 ** (-np.arange(half) / half)
    cos, sin = np.cos(angle).astype(x.dtype), np.sin(angle).astype(x.dtype)
    one, other, odd = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return np.concatenate([one * cos - other * sin, one * sin + other * cos, odd], axis=-1)


def _conv(x: Array, kernel: Array) -> Array:
    *branches, taps, n, m = kernel.shape
    before = np.zeros((*x.shape[:-2], taps - 1, n), x.dtype)
    padded, length = np.concatenate([before, x], axis=-2), x.shape[-2]
    windows = [padded[..., tap : tap + length, :] for tap in range(taps)]
    return _project(np.concatenate(windows, axis=-1), kernel.reshape(*branches, taps * n, m))


def _depthwise_conv(x: Array, kernel: Array) -> Array:
    """All taps in one product of arrays [*outer, taps, channel, position], summed from the oldest
    tap on. Positions come last, as loops along them are longer than along the channels of a
    head."""
    *outer, length, size = x.shape
    taps = kernel.shape[-2]
    padded = np.zeros((*outer, size, taps - 1 + length), x.dtype)
    padded[..., taps - 1 :] = x.swapaxes(-1, -2)
    *strides, row, item = padded.strides
    shape = (*outer, taps, size, length)
    windows = np.ndarray(shape, x.dtype, padded, strides=(*strides, item, row, item))
    made = np.add.reduce(windows * kernel[..., None], axis=-3)
    return np.ascontiguousarray(made.swapaxes(-1, -2))


def _merge_branches(x: Array, n: int) -> Array:
    if x.shape[-3] == 1:
        return _repeat_features(x[..., 0, :, :], n)
    *outer, branches, length, size = x.shape
    return x.swapaxes(-3, -2).reshape(*outer, length, branches * size)


def _repeat_features(x: Array, n: int) -> Array:
    return np.concatenate([x] * n, axis=-1)


_OPS = (
    "abs", "add", "cos", "cumprod", "cumsum", "divide", "exp", "log", "maximum", "minimum",
    "multiply", "sign", "sin", "sqrt", "square", "subtract", "swapaxes", "tanh",
)  # fmt: skip
"""Functions of keras.ops that rows call and that NumPy has under the same name."""

_REDUCED = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}
"""Those that NumPy has as a ufunc's `reduce`, which is faster to call."""

_NAMES: dict[str, Any] = {
    "ops": SimpleNamespace(
        **{name: getattr(np, name) for name in _OPS},
        **{name: ufunc.reduce for name, ufunc in _REDUCED.items()},
        matmul=_matmul,
        mean=_mean,
        relu=lambda x: np.maximum(x, 0.0),
        sigmoid=lambda x: 1 / (1 + np.exp(-x)),
        softmax=_softmax,
    ),
    "attention": _attention,
    "centred": _centred,
    "conv": _conv,
    "depthwise_conv": _depthwise_conv,
    "hide": hide,
    "masked_softmax": _masked_softmax,
    "merge_branches": _merge_branches,
    "over_rms": _over_rms,
    "project": _project,
    "reciprocal": lambda x: np.divide(1.0, x, out=np.zeros_like(x), where=x != 0),
    "repeat_features": _repeat_features,
    "rotated": _rotated,
    "visible_mean": _visible_mean,
}
"""What the code of rows and of fused patterns calls: keras.ops, and the kernels of
`primitives.kernels` that dense programs use."""
