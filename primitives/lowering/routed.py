"""How a routed call's tokens reach its experts and come back, as expressions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from primitives.graph.build import DISPATCH, Node
from primitives.lowering.dispatch import Strategy
from primitives.lowering.expression import Choice, Expression, Literal, Name, call
from primitives.lowering.operation import with_axes
from primitives.ops.state import COUNT, ENTRIES


@dataclass(slots=True)
class Scope:
    """What a block's lines call their values so far: `variables` each state, `ids` the indices of
    sparse states, by the node that made them, and `routes` where the tokens of a routed call are,
    by its DISPATCH. A state that is computed inside another one's line has the empty name."""

    nodes: Sequence[Node]
    variables: list[str] = field(default_factory=list)
    ids: dict[int, str] = field(default_factory=dict)
    routes: dict[int, str] = field(default_factory=dict)

    def value(self, position: int) -> Name:
        return Name(self.variables[position])

    def with_heads(self, position: int, heads: tuple[int, ...]) -> Expression:
        """A state with the branch axes of the calls around a routed one."""
        return with_axes(self.nodes[position].type, heads, self.value(position))

    def indices(self, node: Node, heads: tuple[int, ...]) -> Expression:
        """The indices that a DISPATCH reads, or those of a sparse state, with these branch axes."""
        support = node.inputs[1] if node.op == DISPATCH else node.support
        return with_axes(self.nodes[support].type, heads, Name(self.ids[support]))

    def outer(self, strategy: Strategy) -> tuple[Expression, ...]:
        """The route of the call in whose runs a routed one's tokens lie, if they do."""
        return (Name(self.routes[strategy.outer]),) if strategy.outer >= 0 else ()


def dispatched(scope: Scope, node: Node, strategy: Strategy) -> Expression:
    """A DISPATCH: slots with the tokens of each expert, and their route, which strategy "every"
    does not need, since every expert has all tokens."""
    heads, experts = node.context[:-1], -node.context[-1]
    tokens = scope.with_heads(node.inputs[0], heads)
    if strategy.kind in ("every", "rows"):
        return call("to_every_expert", tokens)
    if strategy.gates >= 0:
        return _by_open_gates(scope, node, strategy, tokens)
    arguments = (tokens, scope.indices(node, heads), experts, tuple(heads))
    if strategy.kind == "runs":
        full = call("to_runs", *arguments, None, *scope.outer(strategy))
        if strategy.capacity_factor is None:
            return full
        capped = call("to_runs", *arguments, strategy.capacity_factor, *scope.outer(strategy))
        return Choice(capped, Name("run.training"), full)
    made = call("to_entries", *arguments)
    if strategy.kind == "blocks":
        made = call("to_blocks", *arguments, strategy.block)
    if strategy.capacity_factor is None:
        return made
    buffers = call("to_buffers", *arguments, strategy.capacity_factor)
    return Choice(buffers, Name("run.training"), made)


def capacity(strategy: Strategy) -> Expression:
    """Places of gates that choose, over a sequence's tokens: in evaluation all that they want."""
    places = Literal(strategy.capacity_share)
    if strategy.bound or strategy.capacity_share == 1:
        return places
    return Choice(places, Name("run.training"), Literal(1.0))


def _by_open_gates(scope: Scope, node: Node, strategy: Strategy, tokens: Expression) -> Expression:
    """A DISPATCH whose gates are for all experts, of which those that are not 0 choose."""
    heads = node.context[:-1]
    gates = scope.with_heads(strategy.gates, heads)
    places = capacity(strategy)
    arguments = (tokens, gates, -node.context[-1], tuple(heads), places)
    if strategy.kind == "blocks":
        return call("to_open_buffers", *arguments)
    every: Expression = Literal(False) if strategy.settled else Name("run.training")
    return call("to_open_runs", *arguments, every, *scope.outer(strategy))


def combined(scope: Scope, node: Node, dispatch: int, strategy: Strategy) -> Expression:
    """A COMBINE: the results of experts, brought back and summed by gate."""
    result, gates = scope.value(node.inputs[0]), scope.nodes[node.inputs[1]]
    heads = node.context[:-1]
    weights = scope.with_heads(node.inputs[1], heads)
    if strategy.kind == "entries":
        return call("sum_entries", result, weights, heads)
    if strategy.kind == "runs":
        route = Name(scope.routes[dispatch])
        return call("collect_runs", result, weights, route, heads, *scope.outer(strategy))
    if dispatch in scope.routes:
        return call("collect", result, weights, Name(scope.routes[dispatch]), heads)
    if gates.type.axis == ENTRIES:
        ids = scope.indices(gates, heads)
        weights = call("spread_entries", weights, ids, -node.context[-1])
    return call("sum_experts", result, weights)


def load(scope: Scope, node: Node, strategy: Strategy) -> Expression:
    """How much each expert of a COMBINE got, see `routing.expert_load`."""
    gates, value = scope.nodes[node.inputs[1]], scope.value(node.inputs[1])
    if gates.type.axis == COUNT:
        return call("gate_load", value)
    ids = scope.indices(gates, gates.type.branches)
    return call("expert_load", value, ids, gates.type.domain, strategy.capacity_factor)


def choices(scope: Scope, node: Node) -> Expression:
    """Which experts of a COMBINE each token went to, and by what gates."""
    heads, n = node.context[:-1], -node.context[-1]
    gates, value = scope.nodes[node.inputs[1]], scope.with_heads(node.inputs[1], node.context[:-1])
    if gates.type.axis == COUNT:
        return call("gate_choices", value, heads)
    return call("entry_choices", value, scope.indices(gates, heads), n, heads)
