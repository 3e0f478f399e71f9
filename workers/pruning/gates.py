"""Hard concrete gates (Louizos et al. 2018): random masks z in [0, 1], often 0 or 1 exactly, with a
gradient by their parameter log alpha.

s = sigmoid((log u - log(1 - u) + log alpha) / BETA) of a uniform u is stretched to (GAMMA, ZETA)
and clipped to [0, 1].
"""

from __future__ import annotations

import math
from typing import Any

from keras import ops

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1

BOUND = math.log(100)
"""Log alpha lies within this on both sides of 0, as in CoFi: a gate that is as good as shut still
opens again in some fifty steps."""

_SHIFT = BETA * math.log(-GAMMA / ZETA)
_EDGE = 1e-6


def drawn(log_alpha: Any, uniform: Any) -> Any:
    """A mask z for each gate, from draws in [0, 1)."""
    u = ops.clip(uniform, _EDGE, 1 - _EDGE)
    return _stretched(ops.sigmoid((ops.log(u) - ops.log(1 - u) + log_alpha) / BETA))


def chance(log_alpha: Any) -> Any:
    """P(z > 0) of each gate."""
    return ops.sigmoid(log_alpha - _SHIFT)


def bounded(log_alpha: Any) -> Any:
    """Log alpha within its bounds."""
    return ops.clip(log_alpha, -BOUND, BOUND)


def settled(log_alpha: Any) -> Any:
    """The mask of each gate without chance: that of the median draw, u = 1/2."""
    return _stretched(ops.sigmoid(log_alpha / BETA))


def _stretched(s: Any) -> Any:
    return ops.clip(s * (ZETA - GAMMA) + GAMMA, 0.0, 1.0)
