"""Each of Primer's rows of the table against the TF function that it is named after; the other
rows are in test_conformance_routing.

A primitive's one-op lowering must give the values and the gradients of its TF function run on each
branch by itself; over key positions, of the TF function on the visible entries. Its type must be
the shape of what TF gives, and its cost what TF's own profiler counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from primitives.graph.build import INPUT, Node
from primitives.kernels import dense as kernels
from primitives.lowering.dispatch import feature_size
from primitives.lowering.expression import Name
from primitives.lowering.operation import operation
from primitives.lowering.render import source
from primitives.ops.state import BLOCK, CHANNELS, COUNT, KEYS, Mismatch, StateType
from primitives.ops.table import PRIMITIVES, Primitive, infer

BATCH, LENGTH, WIDTH = 2, 5, 16
CONSTANT, DIM = 0.25, 4
Branches = tuple[int, ...]
NAMES = [name for name, row in PRIMITIVES.items() if not (row.routing or row.marks)]
BINARY = [name for name in NAMES if PRIMITIVES[name].binary]
WEIGHTED = [name for name in NAMES if PRIMITIVES[name].weight]

NARROW, WIDE = StateType(CHANNELS, DIM), StateType(CHANNELS, 12)
ONE, THREE = StateType(COUNT, 1), StateType(COUNT, 3)
OPEN, CLOSED = StateType(KEYS, 0), StateType(KEYS, 0, closed=True)
KINDS = (NARROW, WIDE, ONE, THREE, OPEN, CLOSED)


def lower_part(x: tf.Tensor) -> tf.Tensor:
    return tf.linalg.band_part(x, -1, 0)


def past(x: tf.Tensor, taps: int) -> tf.Tensor:
    return tf.pad(x, [[0, 0], [taps - 1, 0], [0, 0]])


def depthwise(x: tf.Tensor, w: tf.Tensor) -> tf.Tensor:
    padded, taps = past(x, w.shape[0])[:, None], w[None, :, :, None]
    return tf.nn.depthwise_conv2d(padded, taps, strides=[1, 1, 1, 1], padding="VALID")[:, 0]


def conv1d(x: tf.Tensor, w: tf.Tensor) -> tf.Tensor:
    return tf.nn.conv1d(past(x, w.shape[0]), w, stride=1, padding="VALID")


def per_row(function: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
    """A reduction over key positions: row t is reduced over its first t + 1 entries."""
    return lambda x: tf.stack([function(x[:, t, : t + 1]) for t in range(x.shape[1])], axis=1)


def reduced(function: Callable[..., tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
    return lambda x: function(x, axis=-1, keepdims=True)


# What the table says in its `tf` column, and that function on arrays [batch, T, feature].
# tf.layers.dense is gone from TF 2: without bias and activation it is this tensordot.
REFERENCES: dict[str, tuple[str, Callable[..., tf.Tensor]]] = {
    "ADD": ("tf.math.add", tf.math.add),
    "DIFFERENCE": ("tf.math.subtract", tf.math.subtract),
    "DIVIDE": ("tf.math.divide", tf.math.divide),
    "MULTIPLY": ("tf.math.multiply", tf.math.multiply),
    "ABS ROOT": ("tf.math.sqrt(tf.abs(x))", lambda x: tf.math.sqrt(tf.abs(x))),
    "SQUARE": ("tf.math.square", tf.math.square),
    "EXP": ("tf.exp", tf.exp),
    "LOG": ("tf.math.log(tf.abs(x))", lambda x: tf.math.log(tf.abs(x))),
    "C MUL": ("tf.math.multiply", lambda x: tf.math.multiply(x, CONSTANT)),
    "ABS": ("tf.abs", tf.abs),
    "RECIP": ("tf.math.reciprocal_no_nan", tf.math.reciprocal_no_nan),
    "SIGN": ("tf.sign", tf.sign),
    "COS": ("tf.cos", tf.cos),
    "SIN": ("tf.sin", tf.sin),
    "TANH": ("tf.tanh", tf.tanh),
    "SIGMOID": ("tf.sigmoid", tf.sigmoid),
    "MAX": ("tf.math.maximum", lambda x: tf.math.maximum(x, CONSTANT)),
    "MIN": ("tf.math.minimum", lambda x: tf.math.minimum(x, CONSTANT)),
    "SCALE": ("x * tf.Variable()", lambda x, w: x * w),
    "SHIFT": ("x + tf.Variable()", lambda x, w: x + w),
    "MASK": ("tf.linalg.band_part", lower_part),
    "CUM PROD": ("tf.math.cumprod", lambda x: tf.math.cumprod(x, axis=1)),
    "CUM SUM": ("tf.math.cumsum", lambda x: tf.math.cumsum(x, axis=1)),
    "RED MEAN": ("tf.reduce_mean", reduced(tf.reduce_mean)),
    "RED SUM": ("tf.reduce_sum", reduced(tf.reduce_sum)),
    "RED MIN": ("tf.reduce_min", reduced(tf.reduce_min)),
    "RED MAX": ("tf.reduce_max", reduced(tf.reduce_max)),
    "RED PROD": ("tf.reduce_prod", reduced(tf.reduce_prod)),
    "MAT MUL": ("tf.matmul", tf.matmul),
    "T-MAT MUL": (
        "tf.matmul(transpose_b=True)", lambda x, y: tf.matmul(x, y, transpose_b=True)
    ),
    "CONV 1X1": ("tf.layers.dense", lambda x, w: tf.tensordot(x, w, 1)),
    **{f"CONV {taps}X1": ("tf.nn.conv1d", conv1d) for taps in (3, 7, 15, 31)},
    **{f"DCONV {taps}X1": ("tf.nn.depthwise_conv2d", depthwise) for taps in (3, 7, 15, 31)},
}  # fmt: skip


def reference(name: str, x: StateType, y: StateType) -> Callable[..., tf.Tensor]:
    """The TF function as it reads states of these types: visible entries of closed ones."""
    function = REFERENCES[name][1]
    if not x.closed and not (y.closed and name in BINARY):
        return function
    if name.startswith("RED"):
        return per_row(function)
    if name == "CUM PROD":
        return lambda a: function(lower_part(a) + 1 - lower_part(tf.ones_like(a)))
    if name == "CUM SUM":
        return lambda a: function(lower_part(a))
    if name in ("MAT MUL", "T-MAT MUL"):
        return lambda a, b: function(*(
            lower_part(part) if kind.closed else part for part, kind in ((a, x), (b, y))
        ))  # fmt: skip
    return function


def allowed(name: str, x: StateType, y: StateType, bidirectional: bool) -> bool:
    """Which types fit which primitive, said independently of primitives.ops.types."""
    row = PRIMITIVES[name]
    if name == "MASK":
        return x in (OPEN, CLOSED)
    if name == "MAT MUL":
        return x == CLOSED or (x == OPEN and bidirectional)
    if name == "T-MAT MUL":
        return (x == y and x != OPEN) or (bidirectional and {x, y} <= {OPEN, CLOSED})
    if name.startswith("RED"):
        return x != OPEN or bidirectional
    if row.weight:
        return x not in (OPEN, CLOSED)
    over_keys = {x, y} <= {OPEN, CLOSED}
    return not row.binary or x == y or ONE in (x, y) or over_keys


def branched(kind: StateType, branches: Branches) -> StateType:
    return StateType(kind.axis, kind.size, branches, kind.closed)


def nodes_of(
    name: str, x: StateType, y: StateType, made: StateType, context: Branches
) -> list[Node]:
    """One op on two inputs of any type."""
    row = PRIMITIVES[name]
    value = DIM if "dim" in row.reads else CONSTANT if "constant" in row.reads else 0
    inputs = (0, 1) if row.binary else (0,)
    sources = [Node(INPUT, (), 0, (), kind, "x") for kind in (x, y)]
    return [*sources, Node(name, inputs, value, context if row.weight else (), made, "out")]


def lowering(nodes: Sequence[Node]) -> Callable[[Any, Any, Any], Any]:
    code = source(operation(nodes, nodes[2], ["x", "y"], Name("w")))
    function: Callable[[Any, Any, Any], Any] = eval(f"lambda x, y, w: {code}", dict(vars(kernels)))
    return function


def shape(state: StateType) -> tuple[int, ...]:
    return (BATCH, *state.branches, LENGTH, feature_size(state, WIDTH, LENGTH))


def spread(x: tf.Tensor, branches: Branches, wanted: Branches) -> tf.Tensor:
    """[batch, *branches, T, n] with every branch of `wanted`, as [batch, branch, T, n]."""
    *_, length, size = x.shape
    ones = (1,) * (len(wanted) - len(branches))
    full = tf.reshape(x, (BATCH, *branches, *ones, length, size))
    full = tf.broadcast_to(full, (BATCH, *wanted, length, size))
    return tf.reshape(full, (BATCH, -1, length, size))


def by_tf(nodes: Sequence[Node], x: tf.Tensor, y: tf.Tensor, w: tf.Tensor | None) -> tf.Tensor:
    """The TF function on every branch by itself."""
    first, second, node = nodes
    function = reference(node.op, first.type, second.type)
    wanted = node.context or node.type.branches
    columns = [spread(x, first.type.branches, wanted)]
    if len(node.inputs) == 2:
        columns.append(spread(y, second.type.branches, wanted))
    runs = []
    for branch in range(columns[0].shape[1]):
        weights = [] if w is None else [tf.reshape(w, (-1, *w.shape[len(wanted) :]))[branch]]
        runs.append(function(*(column[:, branch] for column in columns), *weights))
    made = tf.stack(runs, axis=1)
    return tf.reshape(made, (BATCH, *wanted, *made.shape[2:]))


def arrays(nodes: Sequence[Node], seed: int = 0) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
    """Inputs away from zero, where some primitives have a pole or a kink, and a weight."""
    rng = np.random.default_rng(seed)

    def draw(size: tuple[int, ...]) -> tf.Tensor:
        values = rng.uniform(0.3, 1.5, size) * rng.choice([-1.0, 1.0], size)
        return tf.constant(values, tf.float32)

    first, second, node = nodes
    row = PRIMITIVES[node.op]
    w = None
    if row.weight:
        inputs, outputs = shape(first.type)[-1], shape(node.type)[-1]
        w = draw((*node.context, *row.weight.shape(inputs, outputs)))
    return draw(shape(first.type)), draw(shape(second.type)), w


def contexts(name: str) -> list[tuple[Branches, Branches, Branches]]:
    """Branch axes of input 1, of input 2 and around the instruction."""
    if name in WEIGHTED:
        pairs = [((), ()), ((), (2,)), ((2,), (2,)), ((), (2, 2)), ((2,), (2, 2)), ((2, 2), (2, 2))]
        return [(x, (), context) for x, context in pairs]
    if name in BINARY:
        pairs = [((), ()), ((2,), ()), ((), (2,)), ((2,), (2, 2)), ((2, 2), (2, 2))]
        return [(x, y, max(x, y, key=len)) for x, y in pairs]
    return [(x, (), x) for x in ((), (2,), (2, 2))]


def cases(name: str) -> list[list[Node]]:
    """The op on all kinds of inputs that fit it unbranched in bidirectional tasks, which have those
    of other tasks among them, and on the main ones in all branch contexts."""
    made = []
    for x_branches, y_branches, context in contexts(name):
        kinds = (WIDE, ONE, CLOSED) if context else KINDS
        for x, y in product(kinds, kinds if name in BINARY else (ONE,)):
            if not allowed(name, x, y, bidirectional=True):
                continue
            x_type, y_type = branched(x, x_branches), branched(y, y_branches)
            result = infer(name, x_type, y_type, DIM, context, bidirectional=True)
            assert isinstance(result, StateType), f"{name} on {x_type}, {y_type}: {result}"
            made.append(nodes_of(name, x_type, y_type, result, context))
    return made


def test_table_names_every_tf_function() -> None:
    assert {name: PRIMITIVES[name].tf for name in NAMES} == {
        name: tf_name for name, (tf_name, _) in REFERENCES.items()
    }
    assert len(NAMES) == 39


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_those_of_tf(name: str) -> None:
    for nodes in cases(name):
        made = nodes[2].type
        inputs = [value for value in arrays(nodes) if value is not None]
        x, y, w = (*inputs, None)[:3]
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(inputs)
            ours, theirs = lowering(nodes)(x, y, w), by_tf(nodes, x, y, w)
            assert ours.shape == theirs.shape == shape(made), f"{name}: {made}"
            if made.closed:
                ours, theirs = lower_part(ours), lower_part(theirs)
            mix = tf.constant(np.random.default_rng(1).standard_normal(ours.shape), tf.float32)
            totals = tf.reduce_sum(ours * mix), tf.reduce_sum(theirs * mix)
        message = f"{name} on {nodes[0].type}, {nodes[1].type}"
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5, err_msg=message)
        mine, expected = (
            tape.gradient(total, inputs, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            for total in totals
        )
        for ours, theirs in zip(mine, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4, err_msg=message)


@pytest.mark.parametrize("name", NAMES)
def test_types_fit_or_are_refused_with_a_reason(name: str) -> None:
    for x, y in product(KINDS, KINDS if name in BINARY else (ONE,)):
        both = [infer(name, x, y, DIM, (), bidirectional=mode) for mode in (False, True)]
        for mode, made in enumerate(both):
            expected = allowed(name, x, y, bool(mode))
            assert isinstance(made, StateType) == expected, f"{name} on {x}, {y}: {made}"
            assert not isinstance(made, Mismatch) or len(str(made)) > 20
        assert both[0] in (both[1], both[0] if isinstance(both[0], Mismatch) else None)


def test_values_at_poles_and_kinks_are_those_of_tf() -> None:
    points = [0.0, CONSTANT, -CONSTANT, 1e-30, 90.0]
    x = tf.constant(np.tile(points, (BATCH, LENGTH, 1)), tf.float32)
    for name in NAMES:
        if PRIMITIVES[name].binary or PRIMITIVES[name].weight or name == "MASK":
            continue
        nodes = nodes_of(name, THREE, ONE, THREE, ())
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            ours, theirs = lowering(nodes)(x, None, None), REFERENCES[name][1](x)
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(
            tape.gradient(ours, x), tape.gradient(theirs, x), rtol=1e-5, err_msg=name
        )


@pytest.mark.parametrize("name", ["CONV 31X1", "CONV 3X1", "DCONV 31X1", "DCONV 3X1"])
@pytest.mark.parametrize("length", [1, 2, 40])
def test_convolutions_fit_any_length(name: str, length: int) -> None:
    for context in ((), (2,)):
        made = infer(name, NARROW, ONE, DIM, context)
        assert isinstance(made, StateType)
        nodes = nodes_of(name, NARROW, ONE, made, context)
        _, _, w = arrays(nodes)
        x = tf.random.stateless_normal((BATCH, length, shape(NARROW)[-1]), seed=(1, 2))
        ours, theirs = lowering(nodes)(x, None, w), by_tf(nodes, x, x, w)
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


def test_a_mark_is_the_identity_of_a_state_of_the_blocks_type() -> None:
    row = PRIMITIVES["REMEMBER"]
    assert row.tf == "tf.identity" and row.marks and row.flops(8, 8, 8) == 0
    assert infer("REMEMBER", BLOCK, BLOCK, DIM, ()) == BLOCK
    nodes = nodes_of("REMEMBER", BLOCK, ONE, BLOCK, ())
    x = tf.random.stateless_normal(shape(BLOCK), seed=(1, 2))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        ours, theirs = lowering(nodes)(x, None, None), tf.identity(x)
        totals = tf.reduce_sum(ours * ours), tf.reduce_sum(theirs * theirs)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(*(tape.gradient(total, x) for total in totals))
    for other in (*KINDS, branched(BLOCK, (2,))):
        told = infer("REMEMBER", other, other, DIM, ())
        assert isinstance(told, Mismatch) and "d_model channels can be remembered" in str(told)


def test_four_branched_calls_may_nest_and_no_more() -> None:
    deepest = (2, 1, 2, 2)
    for name in WEIGHTED:
        assert "at most 4" in str(infer(name, NARROW, ONE, DIM, (*deepest, 2)))
        made = infer(name, NARROW, ONE, DIM, deepest)
        assert isinstance(made, StateType)
        nodes = nodes_of(name, NARROW, ONE, made, deepest)
        x, y, w = arrays(nodes)
        np.testing.assert_allclose(
            lowering(nodes)(x, y, w), by_tf(nodes, x, y, w), rtol=2e-5, atol=2e-5
        )


# TF's profiler knows no count for these: here one for each number that they give, as it says
# of every elementwise op that it knows; one for each number read, for reductions.
PER_NUMBER_GIVEN = (
    "ABS ROOT", "EXP", "LOG", "ABS", "RECIP", "SIGN", "COS", "SIN", "TANH", "SIGMOID", "CUM PROD",
    "CUM SUM",
)  # fmt: skip
PER_NUMBER_READ = ("RED MIN", "RED MAX", "RED PROD", "RED SUM", "RED MEAN")


def profiled(row: Primitive, nodes: Sequence[Node]) -> int:
    """FLOPs of the TF function on one branch, by TF's profiler."""
    x, y, w = arrays(nodes)
    operands = [x, *([y] if row.binary else []), *([] if w is None else [w])]
    concrete = tf.function(REFERENCES[row.name][1]).get_concrete_function(*operands)
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    counted = tf.compat.v1.profiler.profile(concrete.graph, options=options)
    return int(counted.total_float_ops)


@pytest.mark.parametrize("name", NAMES)
def test_costs_are_what_tf_counts(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    row = PRIMITIVES[name]
    x = CLOSED if name in ("MAT MUL", "MASK") else WIDE
    y = WIDE if row.binary else ONE
    made = infer(name, x, y, DIM, ())
    assert isinstance(made, StateType)
    nodes = nodes_of(name, x, y, made, ())
    sizes = [shape(state)[-1] for state in (x, x, made)]
    ours = row.flops(*sizes) * BATCH * LENGTH
    if name == "MASK":
        expected = 0
    elif name in PER_NUMBER_GIVEN:
        expected = math.prod(shape(made))
    elif name in PER_NUMBER_READ:
        expected = math.prod(shape(x))
    else:
        expected = profiled(row, nodes)
        assert expected > 0
    assert ours == expected
    eightfold = row.flops(sizes[0], 8 * sizes[1], 8 * sizes[2])
    assert eightfold == 8 * row.flops(*sizes), "eight branches cost eight times one"
