"""A primitive with a function of its own."""

from __future__ import annotations

from typing import Any

from primitives.ops import types
from primitives.ops.table import EACH, PRIMITIVES, Primitive


def softplus(x: Any) -> Any:
    """log(1 + exp(x)). No exp overflows, and the gradient is the logistic function."""
    from keras import ops

    @ops.custom_gradient
    def smooth(x: Any) -> tuple[Any, Any]:
        def gradient(*arguments: Any, upstream: Any = None) -> Any:
            return (arguments[0] if upstream is None else upstream) * ops.sigmoid(x)

        return ops.maximum(x, 0.0) + ops.log1p(ops.exp(-ops.abs(x))), gradient

    return smooth(x)


SOFTPLUS = Primitive(
    name="SOFTPLUS",
    tf="tf.nn.softplus",
    reads=("in1",),
    meaning="log(1 + exp(x)): a ramp without a corner",
    rule=lambda x, y, dim, context: types.elementwise(x),
    flops=lambda contracted, read, made: made,
    code="softplus({x})",
    functions=(softplus,),
    stepwise=EACH,
)


def register() -> None:
    PRIMITIVES.register(SOFTPLUS)
