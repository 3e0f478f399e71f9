"""What a block costs, known without running it.

Counts follow the usual convention: a multiply-add is two FLOPs, any elementwise function one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from primitives.graph.build import COMBINE, Graph, Node
from primitives.language.dna import MIDDLE
from primitives.lowering.dispatch import (
    LoweringOptions,
    feature_size,
    inside_of,
    regions,
    strategies,
    weight_shape,
)
from primitives.lowering.rotary import FLOPS, rotated_states
from primitives.ops.state import StateType
from primitives.ops.table import PRIMITIVES

BYTES = 4
"""Bytes of one float32 activation."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Static cost of the whole model.

    Attributes:
        parameters: trainable ones.
        flops_per_token: of the forward pass.
        activation_bytes: float32 results of all operations on one sequence, copies of experts'
            weights among them, which training keeps for the backward pass unless a compiler fuses
            some away; a step has so many for each sequence of its batch.
        active_parameters: those that work on one token: all but the weights of experts that it is
            not routed to.
        bytes_per_token: moved by the forward pass, float32: what operations read and write, copies
            of experts' weights, and all weights, once a batch, spread over its tokens. Sparse
            programs may take their time for these instead of for FLOPs.
    """

    parameters: int
    flops_per_token: int
    activation_bytes: int
    active_parameters: int
    bytes_per_token: int


def static_cost(
    graph: Graph, d_model: int, layers: int, sequence_length: int, vocabulary: int,
    options: LoweringOptions | None = None, other: Graph | None = None,
    learned_positions: bool = True, share_layers: bool = False,
) -> Cost:  # fmt: skip
    """Cost of `layers` blocks with the model around them: tied token embedding, positions if they
    are learned, final layer norm. Blocks that do not run the program run `other`. Routed calls and
    rotary positions count as they are lowered for `options`. Where layers share weights, those of a
    program count once. Training a token takes about three times its forward FLOPs."""
    options = options or LoweringOptions()
    if options.sequence_length != sequence_length:
        options = replace(options, sequence_length=sequence_length)
    own = len(program_layers(graph.every, layers))
    sums = _times(own, _block_cost(graph, d_model, options), share_layers)
    if other is not None and own < layers:
        rest = _times(layers - own, _block_cost(other, d_model, options), share_layers)
        sums = [total + part for total, part in zip(sums, rest, strict=True)]
    return _with_ends(sums, d_model, vocabulary, learned_positions, options)


def _times(layers: int, sums: Sequence[float], share_layers: bool) -> list[float]:
    """The sums of a block (see `_block_cost`) for so many layers of it."""
    parameters, flops, elements, active, moved = sums
    sets = min(1, layers) if share_layers else layers
    return [
        sets * parameters, layers * flops, layers * elements, sets * active, layers * moved,
    ]  # fmt: skip


def layers_cost(
    graphs: Sequence[Graph], d_model: int, vocabulary: int, options: LoweringOptions,
    learned_positions: bool = True,
) -> Cost:  # fmt: skip
    """The same of a model with a graph of its own for each layer."""
    sums = [0.0] * 5
    for graph in graphs:
        sums = [
            total + part
            for total, part in zip(sums, _block_cost(graph, d_model, options), strict=True)
        ]
    return _with_ends(sums, d_model, vocabulary, learned_positions, options)


def _with_ends(
    sums: Sequence[float], d_model: int, vocabulary: int, learned_positions: bool,
    options: LoweringOptions,
) -> Cost:  # fmt: skip
    """The cost of a model, from its blocks' sums."""
    parameters, flops, elements, active, moved = sums
    length = options.sequence_length
    outer = (vocabulary + learned_positions * length + 2) * d_model
    head_flops = 2 * vocabulary * d_model
    activations = elements + vocabulary + 2 * d_model
    moved += 2 * (vocabulary + 4 * d_model) + (parameters + outer) / options.tokens
    return Cost(
        round(parameters) + outer, round(flops) + head_flops,
        round(activations * length) * BYTES, round(active) + outer,
        round(moved * BYTES),
    )  # fmt: skip


def training_passes(graph: Graph) -> int:
    """How often a training step passes through the model."""
    return 2 if "CONSISTENCY" in graph.ops else 1


def program_layers(every: int, layers: int) -> tuple[int, ...]:
    """Which of so many layers run a program: the last of every `every`, or the middle one."""
    if every == MIDDLE:
        return (layers // 2,)
    return tuple(range(layers))[every - 1 :: every]


def _block_cost(
    graph: Graph, d_model: int, options: LoweringOptions
) -> tuple[float, float, float, float, float]:
    """Sums over one block: parameters, FLOPs a token, activations a token, active parameters, and
    numbers moved a token, but for weights that are read once a batch."""
    nodes, length = graph.nodes, options.sequence_length
    shares = _shares(nodes, d_model, options)
    parameters = flops = elements = active = moved = 0.0
    for node, share in zip(nodes, shares, strict=True):
        first = node.inputs[0] if node.inputs else 0
        types = tuple([nodes[child].type for child in node.inputs])
        weights, work, size, read = _node_cost(
            node.op, node.context, types, node.type, d_model, length
        )
        parameters += weights
        active += weights * share.weights
        flops += work * (share if share.packed else shares[first]).rows
        copied = share.copies * weights  # read and written: half of them is held
        elements += size * (share.most or share.rows) + copied / 2
        moved += share.rows * (read + size) + copied
    if options.rotary:
        turned = sum(_size(nodes[each].type, d_model, length) for each in rotated_states(nodes))
        flops, elements, moved = flops + FLOPS * turned, elements + turned, moved + 2 * turned
    return parameters, flops, elements, active, moved


def flops_of_nodes(graph: Graph, d_model: int, options: LoweringOptions) -> list[float]:
    """The forward FLOPs a token of each node, as `static_cost` adds them up for a block."""
    nodes, length, found = graph.nodes, options.sequence_length, list[float]()
    shares = _shares(nodes, d_model, options)
    for node, share in zip(nodes, shares, strict=True):
        first = node.inputs[0] if node.inputs else 0
        types = tuple([nodes[child].type for child in node.inputs])
        _, work, *_ = _node_cost(node.op, node.context, types, node.type, d_model, length)
        found.append(work * (share if share.packed else shares[first]).rows)
    return found


def _size(state: StateType, d_model: int, length: int) -> int:
    """Scalars of a state at one position, without experts' slots."""
    branches = math.prod(n for n in state.branches if n > 0)
    return feature_size(state, d_model, length) * branches


@lru_cache(maxsize=1 << 16)
def _node_cost(
    op: str,
    context: tuple[int, ...],
    types: tuple[StateType, ...],
    made: StateType,
    d_model: int,
    length: int,
) -> tuple[int, float, int, int]:
    """How many trainable weights a node has, its FLOPs and activations a token if each routed call
    around it ran on one row a token, and how many numbers it reads. `types` are those of its
    inputs, `made` that of its result."""
    sizes = [_size(state, d_model, length) for state in types]
    row, size, read = PRIMITIVES.get(op), _size(made, d_model, length), sum(sizes)
    if row is None:
        return 0, 2 * sizes[0] if op == COMBINE else 0, size, read
    first, weights = types[0], 0
    if row.weight is not None and row.weight.trainable:
        weights = math.prod(map(abs, context)) * math.prod(weight_shape(op, first, made, d_model))
    return weights, row.flops(feature_size(first, d_model, length), sizes[0], size), size, read


class _Share(NamedTuple):
    """How much of a node inside routed calls works for one token: on how many rows the node is
    computed, and which share of its weights the token meets. With top 2 of 8 experts, each run on
    its own tokens, that is 2 rows (and what fills up blocks) and 2/8 of the weights. What is
    `packed` is computed on fewer rows than what it reads. Gates that choose as they please may want
    more rows than expected, `most`; memory must hold those. `copies` says how often its weights are
    read and written to have them beside a token: twice 2/8 where each entry has a copy."""

    rows: float
    weights: float
    packed: bool = False
    most: float = 0.0
    copies: float = 0.0


_ALL = _Share(1.0, 1.0)
"""Outside routed calls a node is computed once a token, with all of its weights."""


def _shares(nodes: Sequence[Node], d_model: int, options: LoweringOptions) -> list[_Share]:
    """The share of each node, in the nodes' order. Routed calls nest: an inner one works on the
    rows of the outer one."""
    routed = strategies(nodes, d_model, options, rewritten=False)
    if not routed:
        return [_ALL] * len(nodes)
    region_of, shares = regions(nodes), {-1: _ALL}
    for position, strategy in routed.items():
        dispatch, outer = nodes[position], shares[region_of[inside_of(nodes, position)]]
        met = 1.0
        if len(dispatch.inputs) == 2:
            met = min(1.0, nodes[dispatch.inputs[1]].type.size / -dispatch.context[-1])
        rows = most = strategy.rows
        if strategy.gates >= 0:
            most = strategy.capacity_share * -dispatch.context[-1]
            met = rows / -dispatch.context[-1]
        copies = 2 * met * (strategy.kind == "entries")
        if strategy.kind == "blocks" and strategy.capacity_factor is None and strategy.gates < 0:
            copies = 2 * rows / strategy.block / -dispatch.context[-1]  # a block has one, too
        shares[position] = _Share(
            outer.rows * rows,
            outer.weights * met,
            most=(outer.most or outer.rows) * most,
            copies=copies,
        )
    found = [shares[region] for region in region_of]
    for strategy in routed.values():
        for position in strategy.passing.nodes if strategy.passing is not None else ():
            rows, most = strategy.rows, strategy.capacity_share
            found[position] = _Share(rows, found[position].weights, packed=True, most=most)
    return found
