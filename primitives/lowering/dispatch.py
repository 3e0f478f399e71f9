"""The dispatch strategy of each routed call: chosen here from static cost, never by the program.

Nodes between a DISPATCH and its COMBINE are the call's region: they work on experts' tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from primitives.graph.build import COMBINE, DISPATCH, Node
from primitives.ops.table import PRIMITIVES
from primitives.ops.types import CHANNELS, KEYS, UNITS_PER_WIDTH, StateType

Kind = Literal["every", "blocks", "entries"]


@dataclass(frozen=True, slots=True)
class LoweringOptions:
    """What a block is lowered for.

    `batch_size` and `sequence_length` say how many tokens come at once. `capacity_factor` is how
    many places an expert's buffer has in training over those that an even split of a sequence would
    fill; None is for as many as come. `kind` runs every routed call by that dispatch strategy where
    it can, whatever it costs. `mixed_precision` has products of matrices computed in bfloat16, and
    all else in float32: norms, softmax, routing. `fused` says that a compiler fuses elementwise
    operations; `flash`, that the backend has a kernel for attention in bfloat16. `rotary` has
    products of two sequences see how far apart positions are (`rotary`)."""

    batch_size: int = 16
    sequence_length: int = 256
    capacity_factor: float | None = None
    kind: Kind | None = None
    mixed_precision: bool = False
    fused: bool = False
    flash: bool = False
    rotary: bool = False

    @property
    def tokens(self) -> int:
        return self.batch_size * self.sequence_length


@dataclass(frozen=True, slots=True)
class Strategy:
    """The dispatch strategy of one routed call.

    Attributes:
        kind: "every" runs every expert on every token; "blocks" sorts tokens into blocks that
            belong to one expert each or, where there is a capacity factor, in training, into
            buffers of so many places; "entries" gives each gate entry a copy of its expert's
            weights.
        rows: how many rows the experts' bodies are computed on for each token: 8 for all of 8
            experts, 2 for copies of the weights of the top 2.
        block: rows of a block.
        capacity_factor: places of an expert's buffer over its even share of tokens; None where
            nothing is dropped.
    """

    kind: Kind
    rows: float
    block: int = 1
    capacity_factor: float | None = None


def feature_size(state: StateType, d_model: int, sequence_length: int) -> int:
    """Scalars on a state's feature axis."""
    if state.axis == KEYS:
        return sequence_length
    return state.size * d_model // UNITS_PER_WIDTH if state.axis == CHANNELS else state.size


def weight_shape(op: str, read: StateType, made: StateType, d_model: int) -> tuple[int, ...]:
    """Shape of an op's weight without its branch axes, from the types of its first input and its
    result; () where it has none."""
    row = PRIMITIVES.get(op)
    if row is None or row.weight is None:
        return ()
    return row.weight.shape(feature_size(read, d_model, 0), feature_size(made, d_model, 0))


def regions(nodes: Sequence[Node]) -> list[int]:
    """For each node the position of the DISPATCH of the innermost routed call around it, or -1:
    [-1, -1, 2, 2, -1] where node 2 is a DISPATCH, node 3 an expert's and node 4 their COMBINE."""
    around: list[int] = []
    for position, node in enumerate(nodes):
        inside = around[node.inputs[0]] if node.inputs else -1
        if node.op == COMBINE:
            inside = around[inside_of(nodes, inside)]
        around.append(position if node.op == DISPATCH else inside)
    return around


def inside_of(nodes: Sequence[Node], dispatch: int) -> int:
    """The node whose value a DISPATCH sends out."""
    return nodes[dispatch].inputs[0]


def strategies(
    nodes: Sequence[Node], d_model: int, options: LoweringOptions
) -> dict[int, Strategy]:
    """The strategy of each routed call, by the position of its DISPATCH."""
    routed = [position for position, node in enumerate(nodes) if node.op == DISPATCH]
    around = regions(nodes) if routed else []
    return {position: _strategy(nodes, around, position, d_model, options) for position in routed}


def copied_weights(nodes: Sequence[Node], routed: Mapping[int, Strategy], d_model: int) -> int:
    """How many weights are copied for each token, the most of any routed call: those of the experts
    of its entries, where each entry has a copy."""
    around = regions(nodes) if routed else []
    copied = [
        strategy.rows * _expert_weights(nodes, around, position, d_model)
        for position, strategy in routed.items()
        if strategy.kind == "entries"
    ]
    return int(max(copied, default=0))


def _strategy(
    nodes: Sequence[Node],
    around: Sequence[int],
    dispatch: int,
    d_model: int,
    options: LoweringOptions,
) -> Strategy:
    """The cheapest strategy of those that the call can have, or the one that the options name."""
    node = nodes[dispatch]
    experts = -node.context[-1]
    for_all = len(node.inputs) == 1  # the gates are for all experts
    if for_all or around[node.inputs[0]] >= 0:  # or tokens are slots, some of which are empty
        return Strategy("every", experts)
    entries = nodes[node.inputs[1]].type.size
    choices = _choices(experts, entries, options)
    if options.kind is not None:
        return choices[options.kind]
    weights = _expert_weights(nodes, around, dispatch, d_model)
    call = _Call(experts, entries, weights, d_model, options.tokens)
    return min(choices.values(), key=lambda strategy: _price(strategy, call))


def _choices(experts: int, entries: int, options: LoweringOptions) -> dict[Kind, Strategy]:
    """The strategies of a call whose tokens have `entries` gate entries each."""
    block = _block_size(options.tokens * entries / experts)
    padding = experts * (block - 1) / options.tokens
    blocks = Strategy("blocks", entries + padding, block)
    if (factor := options.capacity_factor) is not None:
        blocks = Strategy("blocks", min(factor, experts) * entries, block, factor)
    return {
        "every": Strategy("every", experts),
        "blocks": blocks,
        "entries": Strategy("entries", entries),
    }


class _Call(NamedTuple):
    """What the price of a routed call depends on: its experts, the gate entries of a token, the
    weights of one expert, the width, and the tokens of a batch."""

    experts: int
    entries: int
    weights: int
    d_model: int
    tokens: int


def _price(strategy: Strategy, call: _Call) -> float:
    """FLOPs a token, those counted whose time copies take: a number copied is worth 2 FLOPs."""
    bodies = 2 * strategy.rows * call.weights
    if strategy.kind == "every":
        return bodies
    tokens_moved = 8 * call.d_model * call.entries
    if strategy.kind == "entries":
        return bodies + 2 * call.entries * call.weights + 2 * tokens_moved
    # An entry is counted against every expert to find its place: some 100 FLOPs' time each.
    placed = 100 * call.entries * call.experts
    if strategy.capacity_factor is not None:  # buffers stand beside their experts' weights
        return bodies + 2 * tokens_moved + placed
    blocks = call.entries / strategy.block + call.experts / call.tokens
    return bodies + 2 * blocks * call.weights + 2 * tokens_moved + placed


def _block_size(tokens: float) -> int:
    """Rows of a block for experts that get so many tokens on average: a power of 2, at most a
    quarter of them and from 4 to 128. An expert's last block is half empty on average, so padding
    is about an eighth."""
    return int(2 ** max(2, min(7, math.floor(math.log2(max(tokens, 1))) - 2)))


def _expert_weights(
    nodes: Sequence[Node], around: Sequence[int], dispatch: int, d_model: int
) -> int:
    """How many weights one expert has, those of the calls that it makes included."""
    total, depth = 0, len(nodes[dispatch].context)
    for position, node in enumerate(nodes):
        read = nodes[node.inputs[0]].type if node.inputs else node.type
        shape = weight_shape(node.op, read, node.type, d_model)
        if shape and _within(nodes, around, position, dispatch):
            total += math.prod(abs(n) for n in node.context[depth:]) * math.prod(shape)
    return total


def _within(nodes: Sequence[Node], around: Sequence[int], position: int, dispatch: int) -> bool:
    """Whether a node lies in the region of a DISPATCH, or in that of a call inside it."""
    region = around[position]
    while region > dispatch:
        region = around[inside_of(nodes, region)]
    return region == dispatch
