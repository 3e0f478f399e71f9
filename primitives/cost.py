"""What a block costs, known without running it.

Counts follow the usual convention: a multiply-add is two FLOPs, any elementwise function one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from primitives.emit import feature_size
from primitives.graph import Graph
from primitives.table import PRIMITIVES

BYTES = 4
"""Bytes of one float32 activation."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Static cost of the whole model: trainable parameters, forward FLOPs a token, and the bytes of
    activations that training keeps for one sequence."""

    parameters: int
    flops_per_token: int
    activation_bytes: int


def static_cost(
    graph: Graph, d_model: int, layers: int, sequence_length: int, vocabulary: int
) -> Cost:
    """Cost of `layers` blocks with the model around them: tied token embedding, learned positions,
    final layer norm. Training a token takes about three times its forward FLOPs."""
    flops = elements = block_parameters = 0
    features: list[int] = []
    sizes: list[int] = []
    for node in graph.nodes:
        feature = feature_size(node.type, d_model, sequence_length)
        made = feature * math.prod(node.type.branches)
        features.append(feature)
        sizes.append(made)
        elements += made
        row = PRIMITIVES.get(node.op)
        if row is not None:
            contracted = features[node.inputs[0]]
            flops += row.flops(contracted, sizes[node.inputs[0]], made)
            if row.weight is not None:
                shape = row.weight.shape(contracted, feature)
                block_parameters += math.prod(node.context) * math.prod(shape)
    parameters = layers * block_parameters + (vocabulary + sequence_length + 2) * d_model
    head_flops = 2 * vocabulary * d_model
    activations = layers * elements + vocabulary + 2 * d_model
    return Cost(
        parameters, layers * flops + head_flops, activations * sequence_length * BYTES
    )  # fmt: skip
