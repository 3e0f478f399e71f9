"""A model's weights as an optimiser's variables.

Where the optimiser looks at nothing but single entries, all weights lie in one vector: one fused
update, and far less to trace. Elsewhere each weight is a variable of its own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from primitives.layer import Array


@dataclass(frozen=True, slots=True)
class Packing:
    """How weights of these shapes lie in variables: all in one vector if `together`."""

    shapes: tuple[tuple[int, ...], ...]
    together: bool

    def variables(self, values: Sequence[Array]) -> list[keras.Variable]:
        packed = [np.concatenate([v.ravel() for v in values])] if self.together else values
        return [keras.Variable(value, dtype="float32", name="weights") for value in packed]

    def tensors(self, variables: Sequence[Any]) -> list[Any]:
        """The weights in their own shapes, from the variables' values as tensors."""
        if not self.together:
            return list(variables)
        ends = list(itertools.accumulate(math.prod(shape) for shape in self.shapes))
        parts = ops.split(variables[0], ends[:-1])
        return [ops.reshape(part, shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def packed(self, gradients: Sequence[Any]) -> list[Any]:
        """Gradients by the weights as gradients by the variables."""
        if not self.together:
            return list(gradients)
        return [ops.concatenate([ops.reshape(gradient, (-1,)) for gradient in gradients])]
