"""The trained weights of a block as one vector, which the block takes apart itself: once for all
the layers that run it, where otherwise every layer's weights would be traced one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from primitives.lowering.layer import Array
from primitives.lowering.weights import WeightSpec
from workers.model.model import Apply, Auxiliary, Layer, outer_count, with_weights

Specs = Sequence[WeightSpec]


def packed_layers(layers: Sequence[Layer], wrap: Callable[[Apply], Apply]) -> tuple[Layer, ...]:
    """The layers with a vector in the place of their trained weights, states after it, and `wrap`
    around each function. Layers that share a function still do."""
    known: dict[int, Layer] = {}
    for layer in layers:
        if id(layer.train) not in known:
            known[id(layer.train)] = _packed_layer(layer, wrap)
    return tuple(known[id(layer.train)]._replace(again=layer.again) for layer in layers)


def pack_blocks(layers: Sequence[Layer], values: Sequence[Array]) -> list[Array]:
    """Values of a model's weights as those of its packed layers."""
    first = outer_count(layers, values)
    made, rest = list(values[:first]), iter(values[first:])
    for layer in with_weights(layers):
        trained, states = _parted(layer.specs, [next(rest) for _ in layer.specs])
        if trained:
            made.append(np.concatenate([value.ravel() for value in trained]))
        made += states
    return made


def unpack_blocks(layers: Sequence[Layer], values: Sequence[Array]) -> list[Array]:
    """And back; `layers` are the unpacked ones."""
    owners = with_weights(layers)
    pairs = [_parted(layer.specs, layer.specs) for layer in owners]
    first = len(values) - sum(bool(trained) + len(states) for trained, states in pairs)
    made, rest = list(values[:first]), iter(values[first:])
    for layer, (trained, states) in zip(owners, pairs, strict=True):
        vector = [next(rest)] if trained else []
        own = [*vector, *(next(rest) for _ in states)]
        made += [np.asarray(value) for value in _apart(layer.specs, own)]
    return made


def _packed_layer(layer: Layer, wrap: Callable[[Apply], Apply]) -> Layer:
    def taking(function: Apply) -> Apply:
        def apply(x: Any, own: Sequence[Any], tokens: Any, seed: Any) -> tuple[Any, Auxiliary]:
            return function(x, _apart(layer.specs, own), tokens, seed)

        return wrap(apply)

    trained, states = _parted(layer.specs, layer.specs)
    total = sum(math.prod(spec.shape) for spec in trained)
    vector = [WeightSpec("", (total,), "zeros", 1)] if trained else []
    specs = (*vector, *states)
    train = taking(layer.train)
    score = train if layer.score is layer.train else taking(layer.score)
    return layer._replace(train=train, score=score, specs=specs, gathered=(False,) * len(specs))


def _parted(specs: Specs, values: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Those of trained weights, and those of states."""
    pairs = list(zip(specs, values, strict=True))
    return [v for s, v in pairs if s.trainable], [v for s, v in pairs if not s.trainable]


def _apart(specs: Specs, own: Sequence[Any]) -> list[Any]:
    """Each weight in its shape, from a vector of those that are trained and the states."""
    shapes = [spec.shape for spec in specs if spec.trainable]
    parts = tf.split(own[0], [math.prod(shape) for shape in shapes]) if shapes else []
    trained = (
        part if len(shape) == 1 else tf.reshape(part, shape)
        for part, shape in zip(parts, shapes, strict=True)
    )  # fmt: skip
    states = iter(own[1:] if shapes else own)
    return [next(trained) if spec.trainable else next(states) for spec in specs]
