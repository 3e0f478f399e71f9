"""A model's weights as an optimiser's variables.

Where the optimiser looks at nothing but single entries, all weights lie in one vector: one fused
update, and far less to trace. Elsewhere each weight is a variable of its own. States, which no
gradient trains, and tables of which a step touches a few rows have variables of their own always.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from primitives.lowering.layer import Array

Kind = Literal["weight", "state", "table"]


@dataclass(frozen=True, slots=True)
class Packing:
    """How weights of these shapes and kinds lie in variables: all that are neither states nor
    tables in one vector if `together`."""

    shapes: tuple[tuple[int, ...], ...]
    kinds: tuple[Kind, ...]
    together: bool

    def of(self, kind: Kind, values: Sequence[Any]) -> list[Any]:
        """Those of one kind."""
        return [value for value, its in zip(values, self.kinds, strict=True) if its == kind]

    def places(self, kind: Kind) -> list[int]:
        """Positions of those of one kind among all the model's weights."""
        return [place for place, its in enumerate(self.kinds) if its == kind]

    def variables(self, values: Sequence[Array]) -> list[keras.Variable]:
        """What the optimiser updates."""
        packed = self.of("weight", values)
        if self.together:
            packed = [np.concatenate([value.ravel() for value in packed])]
        return [keras.Variable(value, dtype="float32", name="weights") for value in packed]

    def tensors(self, variables: Sequence[Any]) -> list[Any]:
        """The weights that the optimiser updates, in their own shapes, from its variables'
        values."""
        if not self.together:
            return list(variables)
        import tensorflow as tf  # packed weights are for its plain graphs

        shapes = self.of("weight", self.shapes)
        parts = tf.split(variables[0], [math.prod(shape) for shape in shapes])
        return [_shaped(part, shape) for part, shape in zip(parts, shapes, strict=True)]

    def all(
        self, weights: Sequence[Any], states: Sequence[Any] = (), tables: Sequence[Any] = ()
    ) -> list[Any]:
        """The model's weights of every kind, in its order."""
        sources = {"weight": iter(weights), "state": iter(states), "table": iter(tables)}
        return [next(sources[kind]) for kind in self.kinds]

    def packed(self, gradients: Sequence[Any]) -> list[Any]:
        """Gradients by the weights as gradients by the variables."""
        if not self.together:
            return list(gradients)
        return [ops.concatenate([_shaped(gradient, (-1,)) for gradient in gradients])]


def _shaped(x: Any, shape: tuple[int, ...]) -> Any:
    """x in a shape; as it is where both have one axis."""
    return x if len(x.shape) == len(shape) == 1 else ops.reshape(x, shape)
