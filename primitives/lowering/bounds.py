"""How large the values of a node can be, without running it: interval arithmetic with intervals
around zero. Only entries that exist count: of a closed state the visible ones.

Weights are taken to be at their start, the normal ones cut from `numeric.normals`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from primitives.graph.build import CONCAT
from primitives.lowering.rewrite import ATTENTION, CENTRED, OVER_RMS, RELU, SOFTMAX
from primitives.lowering.rotary import ROTATED

LARGEST_NORMAL = 5.0
"""No number of `numeric.normals` is larger."""


class Terms(NamedTuple):
    """What a bound depends on, beside the inputs'.

    Attributes:
        value: the node's value, a constant.
        features: the size of input 1 along its feature axis.
        length: positions of the sequence.
        fan_in: how many inputs one output of the node's weight sums; 0 where it has none.
    """

    value: float
    features: int
    length: int
    fan_in: int


Bound = Callable[[float, float], float]
"""(largest absolute value of input 1, of input 2) -> of the result; infinity where nobody knows."""

_Rule = Callable[[float, float, Terms], float]


def _unchanged(x: float, y: float, terms: Terms) -> float:
    return x


def _one(x: float, y: float, terms: Terms) -> float:
    return 1.0


def _sum(x: float, y: float, terms: Terms) -> float:
    return x + y


def _constant(x: float, y: float, terms: Terms) -> float:
    return max(x, abs(terms.value))


def _product(x: float, y: float, terms: Terms) -> float:
    """Many factors grow or shrink."""
    return 1.0 if x <= 1 else math.inf


def _projection(x: float, y: float, terms: Terms) -> float:
    """Each of `fan_in` inputs times a normal number over the root of `fan_in`."""
    return x * LARGEST_NORMAL * math.sqrt(terms.fan_in)


def _over_rms(x: float, y: float, terms: Terms) -> float:
    """The largest of n values over their root mean square: the root of n, where all others are 0.
    A floor that 32 bits round to zero could let 0 / 0 pass."""
    return math.sqrt(terms.features) if terms.value > 1e-30 else math.inf


_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("ADD", "DIFFERENCE"), _sum),
    "MULTIPLY": lambda x, y, terms: x * y,
    "ABS ROOT": lambda x, y, terms: math.sqrt(x),
    "SQUARE": lambda x, y, terms: x * x,
    "EXP": lambda x, y, terms: math.exp(x) if x < 100 else math.inf,
    "C MUL": lambda x, y, terms: x * abs(terms.value),
    **dict.fromkeys(("ABS", "MASK", "RED MEAN", "RED MIN", "RED MAX", RELU, CONCAT), _unchanged),
    **dict.fromkeys(("SIGN", "COS", "SIN", "TANH", "SIGMOID", SOFTMAX), _one),
    **dict.fromkeys(("MAX", "MIN"), _constant),
    **dict.fromkeys(("SCALE", "SHIFT"), _unchanged),  # by 1 and 0
    **dict.fromkeys((f"DCONV {taps}X1" for taps in (3, 7, 15, 31)), _unchanged),  # a weighted mean
    **dict.fromkeys((f"CONV {taps}X1" for taps in (1, 3, 7, 15, 31)), _projection),
    **dict.fromkeys(("CUM PROD", "RED PROD"), _product),
    "CUM SUM": lambda x, y, terms: x * terms.length,
    "RED SUM": lambda x, y, terms: x * terms.features,
    "MAT MUL": lambda x, y, terms: x * y * terms.length,
    "T-MAT MUL": lambda x, y, terms: x * y * terms.features,
    CENTRED: lambda x, y, terms: 2 * x,
    ROTATED: lambda x, y, terms: 2 * x,
    OVER_RMS: _over_rms,
    ATTENTION: lambda x, y, terms: y,  # a weighted mean of the last input
}
"""Of an op that is not here nobody knows: quotients and logarithms, and what plug-ins add."""


def bound(op: str, terms: Terms) -> Bound:
    """How large the result of an `op` can be, as a function of how large its inputs are."""
    rule = _RULES.get(op)
    return (lambda x, y: math.inf) if rule is None else (lambda x, y: rule(x, y, terms))
