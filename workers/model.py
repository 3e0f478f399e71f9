"""The model around a block: tied token embedding, learned positions, the block L times with weights
of its own, a final layer norm, logits.

Everything is a pure function of tokens and weights, written in keras.ops for any backend. Weights
are one flat list: those around the blocks, then each block's own, layer after layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from primitives.emit import WeightSpec, weight_specs
from primitives.graph import Graph
from primitives.layer import Array, Block, initial_weights
from workers.task import ModelSpec

OUTER = ("embedding", "positions", "norm_scale", "norm_shift")
"""Names of the weights around the blocks, in order; those of block 0, block 1, ... follow."""

EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Names and shapes of a model's weights, in order."""

    spec: ModelSpec
    vocabulary: int
    block: tuple[WeightSpec, ...]

    @property
    def names(self) -> tuple[str, ...]:
        layers = range(self.spec.layers)
        return (*OUTER, *(f"blocks/{i}/{weight.name}" for i in layers for weight in self.block))

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        width = self.spec.d_model
        outer = ((self.vocabulary, width), (self.spec.sequence_length, width), (width,), (width,))
        return (*outer, *(weight.shape for weight in self.block * self.spec.layers))


def model_shape(graph: Graph, spec: ModelSpec, vocabulary: int) -> ModelShape:
    return ModelShape(spec, vocabulary, weight_specs(graph, spec.d_model))


def initial_model(shape: ModelShape, seed: int) -> list[Array]:
    """Start values of every weight, in order, the same on every machine and backend."""
    rng = np.random.default_rng(seed)
    vocabulary, width = shape.shapes[0]
    scale = np.float32(width**-0.5)
    return [
        rng.standard_normal((vocabulary, width), np.float32) * scale,
        rng.standard_normal(shape.shapes[1], np.float32) * scale,
        np.ones(width, np.float32),
        np.zeros(width, np.float32),
        *initial_weights(shape.block * shape.spec.layers, rng),
    ]


def logits(block: Block, layers: int, weights: Sequence[Any], tokens: Any) -> Any:
    """Tokens [batch, T] -> logits [batch, T, vocabulary]."""
    embedding, positions, scale, shift, *rest = weights
    x = ops.take(embedding, tokens, axis=0) + positions
    count = len(rest) // layers
    for layer in range(layers):
        x = block(x, rest[layer * count : (layer + 1) * count])
    x = x - ops.mean(x, axis=-1, keepdims=True)
    x = x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + EPSILON)
    return ops.matmul(x * scale + shift, ops.transpose(embedding))


def cross_entropy(block: Block, layers: int, weights: Sequence[Any], windows: Any) -> Any:
    """Mean next-token loss, in nats, of windows [batch, T + 1] of tokens."""
    windows = ops.cast(windows, "int32")
    scores = logits(block, layers, weights, windows[:, :-1])
    losses = ops.sparse_categorical_crossentropy(windows[:, 1:], scores, from_logits=True)
    return ops.mean(losses)
