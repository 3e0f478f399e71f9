"""The dispatch strategy of each routed call: chosen here from static cost, never by the program.

Nodes between a DISPATCH and its COMBINE are the call's region: they work on experts' tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

from primitives.graph.build import COMBINE, DISPATCH, Node
from primitives.lowering.openness import Openness, openness
from primitives.lowering.passing import Passing, passing
from primitives.ops.state import CHANNELS, KEYS, UNITS_PER_WIDTH, StateType
from primitives.ops.table import PRIMITIVES

Kind = Literal["every", "blocks", "entries", "runs", "rows"]

Recorded = Literal["nothing", "loads", "choices"]
"""What a pass leaves of each routed call: how many tokens each expert got, or which ones."""


@dataclass(frozen=True, slots=True)
class LoweringOptions:
    """What a block is lowered for.

    `batch_size` and `sequence_length` say how many tokens come at once. `capacity_factor` is how
    many places an expert's buffer has in training over those that an even split of a sequence would
    fill; None is for as many as come. `kind` runs every routed call by that dispatch strategy where
    it can, whatever it costs. `mixed_precision` has products of matrices computed in bfloat16, and
    all else in float32: norms, softmax, routing. `fused` says that a compiler fuses elementwise
    operations; `flash`, that the backend has a kernel for attention in bfloat16; `dynamic`, that
    sizes of arrays may follow from values, as in TensorFlow's plain graphs. `rotary` has
    products of two sequences see how far apart positions are (`rotary`)."""

    batch_size: int = 16
    sequence_length: int = 256
    capacity_factor: float | None = None
    kind: Kind | None = None
    mixed_precision: bool = False
    fused: bool = False
    flash: bool = False
    dynamic: bool = False
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
            weights; "runs" has tokens in runs of just the length that each expert needs; "rows"
            packs the tokens that a single expert's gate leaves open, for all that only they need.
        rows: how many rows the experts' bodies are computed on for each token: 8 for all of 8
            experts, 2 for copies of the weights of the top 2.
        block: rows of a block.
        capacity_factor: places of an expert's buffer over its even share of tokens; None where
            nothing is dropped.
        gates: where gates for all experts choose, the position of their node; else -1.
        settled, bound: what is known of these gates (see `openness.Openness`): whether they choose
            in training, too, and whether their share of a sequence is never exceeded.
        capacity_share: places that they have, over a sequence's tokens.
        outer: the DISPATCH of the call in whose runs the tokens lie; -1 where they lie in none.
        passing: what is computed on packed rows, for "rows".
    """

    kind: Kind
    rows: float
    block: int = 1
    capacity_factor: float | None = None
    gates: int = -1
    settled: bool = True
    bound: bool = False
    capacity_share: float = 1.0
    outer: int = -1
    passing: Passing | None = None


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
    nodes: Sequence[Node], d_model: int, options: LoweringOptions, rewritten: bool = True
) -> dict[int, Strategy]:
    """The strategy of each routed call, by the position of its DISPATCH, among nodes as they are
    lowered, or, not `rewritten`, as the program says them."""
    routed = [position for position, node in enumerate(nodes) if node.op == DISPATCH]
    chosen: dict[int, Strategy] = {}
    if routed:
        calls = Calls(
            nodes,
            regions(nodes),
            openness(nodes, options.sequence_length),
            d_model,
            options,
            rewritten,
        )
        for position in routed:
            chosen[position] = calls.strategy(position, chosen)
    return chosen


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


class Calls(NamedTuple):
    """The routed calls of a block, and what their strategies follow from."""

    nodes: Sequence[Node]
    around: Sequence[int]
    open: Sequence[Openness]
    d_model: int
    options: LoweringOptions
    rewritten: bool

    def strategy(self, dispatch: int, outer: Mapping[int, Strategy]) -> Strategy:
        """The cheapest strategy of those that a call can have, or the one that the options name;
        `outer` are those of the calls before it."""
        experts = -self.nodes[dispatch].context[-1]
        every = Strategy("every", experts)
        choices = self._choices(dispatch, outer)
        kind = self.options.kind
        if kind in choices:
            return choices[kind]
        if kind in ("every", "blocks", "entries"):  # sizes that are fixed leave the others
            return every
        weights = _expert_weights(self.nodes, self.around, dispatch, self.d_model)
        entries = self._entries(dispatch)
        call = _Call(experts, entries, weights, self.d_model, self.options.tokens)
        return min(choices.values(), key=lambda strategy: _price(strategy, call))

    def _choices(self, dispatch: int, outer: Mapping[int, Strategy]) -> dict[Kind, Strategy]:
        """Every expert on every token; where gates choose, also the other strategies. Slots of
        another call may be empty, unless they are in runs."""
        node, options, factor = self.nodes[dispatch], self.options, self.options.capacity_factor
        experts, entries = -node.context[-1], self._entries(dispatch)
        choices: dict[Kind, Strategy] = {"every": Strategy("every", experts)}
        region = self.around[node.inputs[0]]
        may_run = options.dynamic and (region < 0 or outer[region].kind == "runs")
        if len(node.inputs) == 1:
            gates = self._open_gates(dispatch)
            return choices | self._open_choices(dispatch, gates, region, may_run)
        if may_run:
            within = None if region >= 0 else factor  # another call's tokens are no sequence
            rows = entries if within is None else min(factor or 1.0, 1.0) * entries
            choices["runs"] = Strategy("runs", rows, capacity_factor=within, outer=region)
        if region >= 0:
            return choices
        block = _block_size(options.tokens * entries / experts)
        padding = experts * (block - 1) / options.tokens
        choices["blocks"] = Strategy("blocks", entries + padding, block)
        if factor is not None:
            choices["blocks"] = Strategy("blocks", min(factor, experts) * entries, block, factor)
        choices["entries"] = Strategy("entries", entries)
        return choices

    def _open_choices(
        self, dispatch: int, gates: int, region: int, may_run: bool
    ) -> dict[Kind, Strategy]:
        """The strategies of a call for whose experts the gates at that position choose. Buffers of
        fixed sizes need a capacity, or gates that keep to their share."""
        choices: dict[Kind, Strategy] = {}
        if gates < 0:
            return choices
        experts = -self.nodes[dispatch].context[-1]
        known, factor = self.open[gates], self.options.capacity_factor
        capacity = 1.0
        if region < 0 and known.settled:
            capacity = min(1.0, known.share * (1.0 if known.bound else factor or math.inf))
        made = partial(
            Strategy, gates=gates, settled=known.settled, bound=known.bound, outer=region,
            capacity_share=capacity,
        )  # fmt: skip
        if may_run:
            choices["runs"] = made("runs", min(capacity, known.share) * experts)
        if capacity < 1:
            choices["blocks"] = made("blocks", capacity * experts)
        if known.settled and (may_run or capacity < 1):
            rotary = self.options.rotary
            found = passing(self.nodes, self.around, dispatch, gates, self.rewritten, rotary)
            if found is not None:
                share = min(capacity, known.share) if may_run else capacity
                choices["rows"] = made("rows", share, passing=found)
        return choices

    def _entries(self, dispatch: int) -> float:
        """Gate entries of a token, as far as that is known."""
        node = self.nodes[dispatch]
        if len(node.inputs) == 2:
            return self.nodes[node.inputs[1]].type.size
        gates = self._open_gates(dispatch)
        return -node.context[-1] * (self.open[gates].share if gates >= 0 else 1.0)

    def _open_gates(self, dispatch: int) -> int:
        """The gates that choose for a call whose gates are for all experts; -1 where none do, or
        where several calls share the tokens and weigh them differently."""
        if len(self.nodes[dispatch].inputs) == 2:
            return -1
        gates = {
            node.inputs[1]
            for node in self.nodes
            if node.op == COMBINE and self.around[node.inputs[0]] == dispatch
        }
        return gates.pop() if len(gates) == 1 and self.open[min(gates)].share < 1 else -1


class _Call(NamedTuple):
    """What the price of a routed call depends on: its experts, the gate entries of a token, the
    weights of one expert, the width, and the tokens of a batch."""

    experts: int
    entries: float
    weights: int
    d_model: int
    tokens: int


_RUN = 2e5
"""FLOPs worth of the time that an expert's own products of matrices take to start."""


def _price(strategy: Strategy, call: _Call) -> float:
    """FLOPs a token, those counted whose time copies take: a number copied is worth 2 FLOPs."""
    bodies = 2 * strategy.rows * call.weights
    if strategy.kind in ("every", "rows"):  # the latter saves more than the bodies
        return bodies
    tokens_moved = 8 * call.d_model * call.entries
    if strategy.kind == "entries":
        return bodies + 2 * call.entries * call.weights + 2 * tokens_moved
    if strategy.kind == "runs":
        return bodies + 2 * tokens_moved + _RUN * call.experts / call.tokens
    # Entries are sorted by expert: some 100 FLOPs' time for each of a sort's passes.
    placed = 100 * call.entries * math.log2(max(2.0, call.entries * call.tokens))
    if (
        strategy.capacity_factor is not None or strategy.gates >= 0
    ):  # buffers stand beside their experts' weights
        return bodies + 2 * tokens_moved + placed
    blocks = call.entries / strategy.block + call.experts / call.tokens
    return bodies + 2 * blocks * call.weights + 2 * tokens_moved + placed


def _block_size(tokens: float) -> int:
    """Rows of a block for experts that get so many tokens on average: a power of 2, at most a
    quarter of them and from 4 to 512. An expert's last block is half empty on average, so padding
    is about an eighth."""
    return int(2 ** max(2, min(9, math.floor(math.log2(max(tokens, 1))) - 2)))


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
