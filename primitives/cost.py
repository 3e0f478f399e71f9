"""What a block costs, known without running it.

Counts follow the usual convention: a multiply-add is two FLOPs, any elementwise function one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from primitives.dna import MIDDLE
from primitives.graph import COMBINE, DISPATCH, Graph
from primitives.plan import Setting, Way, feature_size, inside_of, regions, ways, weight_shape
from primitives.table import PRIMITIVES

BYTES = 4
"""Bytes of one float32 activation."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Static cost of the whole model: trainable parameters, forward FLOPs a token, the bytes of
    activations that training keeps for one sequence, and of the parameters those that work on one
    token: all but the weights of experts that it is not routed to."""

    parameters: int
    flops_per_token: int
    activation_bytes: int
    active_parameters: int


def static_cost(
    graph: Graph, d_model: int, layers: int, sequence_length: int, vocabulary: int,
    setting: Setting | None = None, other: Graph | None = None,
) -> Cost:  # fmt: skip
    """Cost of `layers` blocks with the model around them: tied token embedding, learned positions,
    final layer norm. Blocks that do not run the program run `other`. Routed calls count as they are
    lowered for `setting`. Training a token takes about three times its forward FLOPs."""
    setting = replace(setting or Setting(), sequence_length=sequence_length)
    own = len(program_layers(graph.every, layers))
    sums = [own * part for part in _block_cost(graph, d_model, setting)]
    if other is not None and own < layers:
        rest = _block_cost(other, d_model, setting)
        sums = [total + (layers - own) * part for total, part in zip(sums, rest, strict=True)]
    parameters, flops, elements, active = sums
    outer = (vocabulary + sequence_length + 2) * d_model
    head_flops = 2 * vocabulary * d_model
    activations = elements + vocabulary + 2 * d_model
    return Cost(
        round(parameters) + outer, round(flops) + head_flops,
        round(activations * sequence_length) * BYTES, round(active) + outer,
    )  # fmt: skip


def program_layers(every: int, layers: int) -> tuple[int, ...]:
    """Which of so many layers run a program: the last of every `every`, or the middle one."""
    if every == MIDDLE:
        return (layers // 2,)
    return tuple(range(layers))[every - 1 :: every]


def _block_cost(graph: Graph, d_model: int, setting: Setting) -> tuple[float, float, float, float]:
    """Of one block: parameters, FLOPs and activations a token, active parameters."""
    nodes, around = graph.nodes, regions(graph.nodes)
    routes = ways(nodes, d_model, setting)
    parameters = flops = elements = active = 0.0
    features: list[int] = []
    sizes: list[float] = []
    for position, node in enumerate(nodes):
        feature = feature_size(node.type, d_model, setting.sequence_length)
        rows = _rows(node.type.branches, routes, around, nodes, position)
        made = feature * rows
        features.append(feature)
        sizes.append(made)
        elements += made
        if node.op == COMBINE:
            flops += 2 * sizes[node.inputs[0]]
        row = PRIMITIVES.get(node.op)
        if row is None:
            continue
        flops += row.flops(features[node.inputs[0]], sizes[node.inputs[0]], made)
        shape = weight_shape(nodes, node, d_model)
        if row.weight is not None and row.weight.trainable:
            size = math.prod(abs(n) for n in node.context) * math.prod(shape)
            parameters += size
            active += size * _visited(nodes, around, position)
    return parameters, flops, elements, active


def _rows(
    branches: tuple[int, ...], routes: dict[int, Way], around: list[int], nodes: Any, position: int
) -> float:
    """Rows of a state for each token: its heads, and what its routed calls compute."""
    rows = float(math.prod(n for n in branches if n > 0))
    region = position if nodes[position].op == DISPATCH else around[position]
    while region >= 0:
        rows *= routes[region].rows
        region = around[inside_of(nodes, region)]
    return rows


def _visited(nodes: Any, around: list[int], position: int) -> float:
    """The share of the experts around a weight that a token is routed to."""
    share, region = 1.0, around[position]
    while region >= 0:
        dispatch = nodes[region]
        if len(dispatch.inputs) == 2:
            share *= min(1.0, nodes[dispatch.inputs[1]].type.size / -dispatch.context[-1])
        region = around[inside_of(nodes, region)]
    return share
