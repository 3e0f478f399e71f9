"""A function of batches, compiled on whichever backend Keras runs: for looking at a trained model
outside an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras


def compiled(function: Callable[[Any], Sequence[Any]]) -> Callable[[Any], Sequence[Any]]:
    """The function, pure and in keras.ops, from one array [batch, ...] to NumPy arrays. It is
    traced at its first call, and again for another shape or type."""

    class Compiled(keras.Model):  # type: ignore[misc]  # Keras has no types
        def call(self, batch: Any) -> Sequence[Any]:
            return function(batch)

    model = Compiled(autocast=False)
    model.built = True
    model.compile(jit_compile=keras.backend.backend() == "jax")
    predict: Callable[[Any], Sequence[Any]] = model.predict_on_batch
    return predict
