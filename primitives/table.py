"""The one table of primitives: the 39 of Primer (So et al. 2021, appendix A.1, table 2).

A row is everything that is known of a primitive: what it is called, which TF function it is, which
instruction fields it reads, its type rule, its cost rule, the keras.ops expression it lowers to,
and what it means. Tests, command line listings, mutation and dispatch all read this table.

Expressions name the inputs {x} and {y}, the bank constant {c} and the weight {w}; arrays are laid
out [batch, *branches, T, feature]. Functions other than `ops.` ones are in `kernels`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from primitives import types
from primitives.types import Inferred, StateType

Rule = Callable[[StateType, StateType, int, tuple[int, ...]], Inferred]
"""(type of input 1, type of input 2, dim in units, branch axes around) -> type or a reason."""

Init = Literal["fan_in", "causal", "ones", "zeros"]


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight of `shape(inputs, outputs)`, feature sizes in scalars, under the branch axes.

    Inits: fan_in is normal with variance 1/(product of all axes but the last); causal is 1/2 on
    the current position and 1/(2 taps) on each earlier one, as in Primer's published layer; ones;
    zeros.
    """

    shape: Callable[[int, int], tuple[int, ...]]
    init: Init


@dataclass(frozen=True, slots=True)
class Primitive:
    """One row. `flops(contracted, read, made)` counts a token's forward FLOPs from the feature size
    of input 1, the elements of input 1 and the elements of the result, branches included.
    `hidden` holds what the invisible entries of a closed input must count as (None: anything).
    `aligned` says that inputs are given the result's branch axes before the expression."""

    name: str
    tf: str
    reads: tuple[str, ...]
    meaning: str
    rule: Rule
    flops: Callable[[int, int, int], int]
    code: str
    hidden: tuple[float | None, float | None] = (None, None)
    weight: Weight | None = None
    commutative: bool = False
    aligned: bool = True
    over_keys: str | None = None

    @property
    def binary(self) -> bool:
        return "in2" in self.reads


def _each(contracted: int, read: int, made: int) -> int:
    return made


def _reduced(contracted: int, read: int, made: int) -> int:
    return read


def _product(contracted: int, read: int, made: int) -> int:
    return 2 * contracted * made


def _unary_rule(rule: Callable[[StateType], Inferred]) -> Rule:
    return lambda x, y, dim, context: rule(x)


def _binary_rule(rule: Callable[[StateType, StateType], Inferred]) -> Rule:
    return lambda x, y, dim, context: rule(x, y)


def _per_channel_rule(x: StateType, y: StateType, dim: int, context: tuple[int, ...]) -> Inferred:
    return types.per_channel(x, context)


def _projection_rule(x: StateType, y: StateType, dim: int, context: tuple[int, ...]) -> Inferred:
    return types.projection(x, dim, context)


def _unary(name: str, tf: str, code: str, meaning: str, hidden: float | None = None) -> Primitive:
    rule = _unary_rule(types.elementwise)
    return Primitive(name, tf, ("in1",), meaning, rule, _each, code, (hidden, None))


def _binary(
    name: str, tf: str, meaning: str, commutative: bool = False, hidden: float | None = None
) -> Primitive:
    rule, code = _binary_rule(types.binary), f"ops.{tf.split('.')[-1]}({{x}}, {{y}})"
    return Primitive(
        name,
        tf,
        ("in1", "in2"),
        meaning,
        rule,
        _each,
        code,
        (None, hidden),
        commutative=commutative,
    )


def _constant(name: str, tf: str, meaning: str) -> Primitive:
    rule, code = _unary_rule(types.elementwise), f"ops.{tf.split('.')[-1]}({{x}}, {{c}})"
    return Primitive(name, tf, ("in1", "constant"), meaning, rule, _each, code)


def _reduction(name: str, meaning: str, hidden: float, over_keys: str | None = None) -> Primitive:
    short = name.split()[1].lower()
    code = f"ops.{short}({{x}}, axis=-1, keepdims=True)"
    return Primitive(
        name, f"tf.reduce_{short}", ("in1",), meaning, _unary_rule(types.reduction), _reduced, code,
        (hidden, None), over_keys=over_keys,
    )  # fmt: skip


def _conv(taps: int) -> Primitive:
    one = taps == 1
    return Primitive(
        f"CONV {taps}X1",
        "tf.layers.dense" if one else "tf.nn.conv1d",
        ("in1", "dim"),
        "linear map of the channels" if one else f"linear map of the last {taps} positions",
        _projection_rule,
        lambda contracted, read, made: 2 * taps * contracted * made,
        "project({x}, {w})" if one else "conv({x}, {w})",
        weight=Weight(lambda n, m: (n, m) if one else (taps, n, m), "fan_in"),
        aligned=False,
    )


def _dconv(taps: int) -> Primitive:
    return Primitive(
        f"DCONV {taps}X1",
        "tf.nn.depthwise_conv2d",
        ("in1",),
        f"each channel's weighted sum over the last {taps} positions",
        _per_channel_rule,
        lambda contracted, read, made: 2 * taps * made,
        "depthwise_conv({x}, {w})",
        weight=Weight(lambda n, m: (taps, n), "causal"),
    )


def _learned(name: str, tf: str, code: str, meaning: str, init: Init) -> Primitive:
    return Primitive(
        name, tf, ("in1",), meaning, _per_channel_rule, _each, code,
        weight=Weight(lambda n, m: (n,), init),
    )  # fmt: skip


_BIG = 3.4e38

_ROWS = (
    _binary("ADD", "tf.math.add", "x + y", commutative=True),
    _binary("DIFFERENCE", "tf.math.subtract", "x - y"),
    _binary("DIVIDE", "tf.math.divide", "x / y", hidden=1.0),
    _binary("MULTIPLY", "tf.math.multiply", "x * y", commutative=True),
    _unary("ABS ROOT", "tf.math.sqrt(tf.abs(x))", "ops.sqrt(ops.abs({x}))", "sqrt(|x|)", 1.0),
    _unary("SQUARE", "tf.math.square", "ops.square({x})", "x * x"),
    _unary("EXP", "tf.exp", "ops.exp({x})", "e to the x"),
    _unary("LOG", "tf.math.log(tf.abs(x))", "ops.log(ops.abs({x}))", "log(|x|)", 1.0),
    _constant("C MUL", "tf.math.multiply", "x times a bank constant"),
    _unary("ABS", "tf.abs", "ops.abs({x})", "|x|"),
    _unary("RECIP", "tf.math.reciprocal_no_nan", "reciprocal({x})", "1 / x, and 0 where x is 0"),
    _unary("SIGN", "tf.sign", "ops.sign({x})", "-1, 0 or 1"),
    _unary("COS", "tf.cos", "ops.cos({x})", "cosine"),
    _unary("SIN", "tf.sin", "ops.sin({x})", "sine"),
    _unary("TANH", "tf.tanh", "ops.tanh({x})", "hyperbolic tangent"),
    _unary("SIGMOID", "tf.sigmoid", "ops.sigmoid({x})", "1 / (1 + e to the -x)"),
    _constant("MAX", "tf.math.maximum", "the larger of x and a bank constant (0: ReLU)"),
    _constant("MIN", "tf.math.minimum", "the smaller of x and a bank constant"),
    _learned(
        "SCALE", "x * tf.Variable()", "ops.multiply({x}, {w}[..., None, :])",
        "x times a learned factor a channel", "ones",
    ),
    _learned(
        "SHIFT", "x + tf.Variable()", "ops.add({x}, {w}[..., None, :])",
        "x plus a learned offset a channel", "zeros",
    ),
    Primitive(
        "MASK", "tf.linalg.band_part", ("in1",), "keeps key positions s <= t, closing the state",
        _unary_rule(types.mask), lambda contracted, read, made: 0, "hide({x}, 0.0)",
    ),
    Primitive(
        "CUM PROD", "tf.math.cumprod", ("in1",), "running product over the sequence",
        _unary_rule(types.elementwise), _each, "ops.cumprod({x}, axis=-2)", (1.0, None),
    ),
    Primitive(
        "CUM SUM", "tf.math.cumsum", ("in1",), "running sum over the sequence",
        _unary_rule(types.elementwise), _each, "ops.cumsum({x}, axis=-2)", (0.0, None),
    ),
    _reduction("RED MEAN", "mean over the feature axis", 0.0, over_keys="visible_mean({x})"),
    _reduction("RED SUM", "sum over the feature axis", 0.0),
    _reduction("RED MIN", "smallest over the feature axis", _BIG),
    _reduction("RED MAX", "largest over the feature axis", -_BIG),
    _reduction("RED PROD", "product over the feature axis", 1.0),
    Primitive(
        "MAT MUL", "tf.matmul", ("in1", "in2"), "x [T, S] times y [S, n]",
        _binary_rule(types.product), _product, "ops.matmul({x}, {y})", (0.0, 0.0),
    ),
    Primitive(
        "T-MAT MUL", "tf.matmul(transpose_b=True)", ("in1", "in2"), "x times y transposed: scores",
        _binary_rule(types.transposed_product), _product,
        "ops.matmul({x}, ops.swapaxes({y}, -1, -2))", (0.0, 0.0),
    ),
    *(_conv(taps) for taps in (1, 3, 7, 15, 31)),
    *(_dconv(taps) for taps in (3, 7, 15, 31)),
)  # fmt: skip

PRIMITIVES: dict[str, Primitive] = {row.name: row for row in _ROWS}


@lru_cache(maxsize=1 << 16)
def infer(name: str, x: StateType, y: StateType, dim: int, context: tuple[int, ...]) -> Inferred:
    """The type of primitive `name` on inputs of types x and y, or the reason why it has none."""
    return PRIMITIVES[name].rule(x, y, dim, context)
