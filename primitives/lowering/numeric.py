"""Programs in NumPy: the code of the primitives' rows, node by node, in the precision of what they
are given. Nothing is compiled, so a tiny input takes microseconds a node.

States are [sequence, *branches, position, feature]. Programs that route, draw random numbers or act
in training alone are not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from types import SimpleNamespace
from typing import Any, TypeVar

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
    runs here. Of a plug-in's primitive that is seen when it is called: it raises an AttributeError
    or a NameError."""
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
        values.append(function_of(nodes, node)([values[child] for child in node.inputs], weight))
    return values


def function_of(nodes: Sequence[Node], node: Node) -> Function:
    """A node as a function. Nodes that compute the same of states of the same types share one."""
    read = tuple([_source(nodes[child].op, nodes[child].type) for child in node.inputs])
    return _function(node.op, node.value, node.context, node.count, node.type, read)


class State:
    """What a node makes, an operation `op` a state of this type. Equal to itself alone, so that it
    is looked up fast."""

    __slots__ = ("array", "source", "type")

    def __init__(self, array: Array, op: str, type: StateType) -> None:
        self.array, self.type, self.source = array, type, _source(op, type)


Made = TypeVar("Made", bound=State)


def applied(
    make: Callable[[Array, str, StateType], Made],
    op: str,
    value: float,
    context: tuple[int, ...],
    kind: StateType,
    count: int,
    read: Sequence[State],
    weight: Array | None,
) -> Made:
    """What a node with these fields makes of states, as a state of the class `make`."""
    function = _function(op, value, context, count, kind, tuple([each.source for each in read]))
    return make(function([each.array for each in read], weight), op, kind)


Source = tuple[str, StateType]
"""What the code of a node depends on in a state that it reads."""


def _source(op: str, type: StateType) -> Source:
    return op if op in _HIDING else INPUT, type


_HIDING = ("MASK", SOFTMAX)
"""What gives states whose invisible entries are 0: they need no filling (`operation.fill_of`)."""


@lru_cache(maxsize=1 << 14)
def _function(
    op: str,
    value: float,
    context: tuple[int, ...],
    count: int,
    made: StateType,
    read: tuple[Source, ...],
) -> Function:
    nodes = [Node(maker, (), 0, (), kind, "") for maker, kind in read]
    own = Node(op, tuple(range(len(nodes))), value, context, made, "", count)
    names = [f"read[{place}]" for place in range(len(nodes))]
    code = source(operation(nodes, own, names, Name("weight") if has_weight(own) else None))
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


def started(init: Init, noise: Array, fan_in: int, moved: float = 0.0) -> Array:
    """A weight at its start, or `moved` times `noise` away from it."""
    if init == "fan_in":
        made: Array = noise / fan_in**0.5
        return made
    start = np.zeros_like(noise)
    if init == "ones":
        start += 1.0
    elif init == "causal":
        start += 0.5 / noise.shape[-2]
        start[..., -1, :] = 0.5
    return start + moved * noise if moved else start


def _hide(x: Array, fill: float) -> Array:
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
    powers: Array = x - x.max(axis=axis, keepdims=True)
    np.exp(powers, out=powers)
    powers /= np.add.reduce(powers, axis=axis, keepdims=True)
    return powers


def _masked_softmax(x: Array) -> Array:
    return _softmax(_hide(x, float("-inf")))


def _attention(q: Array, k: Array, v: Array, causal: bool) -> Array:
    """Keys and values may lack inner branch axes of the queries, which then share them."""
    k, v = _with_axes(k, q.ndim), _with_axes(v, q.ndim)
    scores = _matmul(q, k.swapaxes(-1, -2))
    if causal:
        scores += _hidden(scores.shape[-1], scores.dtype.char)
    return _matmul(_softmax(scores), v)


def _mean(x: Array, axis: int = -1, keepdims: bool = True) -> Array:
    """`np.mean`, which takes twice as long to be called."""
    made: Array = x.sum(axis=axis, keepdims=keepdims) / x.shape[axis]
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


def _windows(x: Array, taps: int) -> list[Array]:
    before = np.zeros((*x.shape[:-2], taps - 1, x.shape[-1]), x.dtype)
    padded = np.concatenate([before, x], axis=-2)
    return [padded[..., tap : tap + x.shape[-2], :] for tap in range(taps)]


def _conv(x: Array, kernel: Array) -> Array:
    *branches, taps, n, m = kernel.shape
    window = np.concatenate(_windows(x, taps), axis=-1)
    return _project(window, kernel.reshape(*branches, taps * n, m))


def _depthwise_conv(x: Array, kernel: Array) -> Array:
    first, *others = _windows(x, kernel.shape[-2])
    made: Array = first * kernel[..., 0, None, :]
    product = np.empty(made.shape, made.dtype)
    for tap, row in enumerate(others, 1):
        made += np.multiply(row, kernel[..., tap, None, :], out=product)
    return made


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
    "hide": _hide,
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
