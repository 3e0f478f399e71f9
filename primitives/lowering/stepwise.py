"""A graph as code for a few new positions: the same nodes as in `emit`, each computed at the new
positions alone, from its inputs there and from what was kept of earlier ones.

What is kept follows from the rows of the table (`Stepwise`): keys and values of attention are the
inputs of which a product reads every position, tails of convolutions the positions before the new
ones, and running sums the last result. A prompt is so many new positions after none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from primitives.graph.build import Graph, Node
from primitives.lowering.dispatch import (
    LoweringOptions,
    copied_weights,
    feature_size,
    strategies,
)
from primitives.lowering.emit import Body, Emitter, row_functions
from primitives.lowering.expression import (
    Assignment,
    Expression,
    Name,
    call,
    filled,
    mentioned,
    template,
    with_functions,
)
from primitives.lowering.operation import fill_of, holes, row_code, with_axes
from primitives.lowering.rewrite import ATTENTION, SOFTMAX, lowered
from primitives.lowering.rotary import ROTATED
from primitives.lowering.weights import weight_specs
from primitives.ops.primitive import Primitive
from primitives.ops.state import ENTRIES, KEYS, StateType, buffer
from primitives.ops.table import PRIMITIVES

CACHE, START = "cache", "start"
"""What a step is given beside x, its weights and the pass `run`: what was kept, as a tuple, and how
many positions came before."""

ONE_TOKEN = LoweringOptions(batch_size=1, sequence_length=1)
"""What a step is lowered for: its routed calls run as is cheapest for a token at a time."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a step keeps for the next one.

    Attributes:
        name: the variable that holds it when a step begins.
        value: what a step leaves of it.
        type: the type of the state that it holds positions of.
        rows: how many positions it holds; None for all of them.
        start: what it holds before the first position.
    """

    name: str
    value: Expression
    type: StateType
    rows: int | None
    start: float = 0.0

    def shape(self, batch: int, length: int, d_model: int) -> tuple[int, ...]:
        """Its shape, with room for `length` positions where it holds all of them."""
        rows = length if self.rows is None else self.rows
        return (batch, *self.type.branches, rows, feature_size(self.type, d_model, length))


@dataclass(frozen=True, slots=True)
class Step:
    """The code of a step: its body, which reads `cache` and `start` too, what it keeps, and how
    many expert weights it copies for each token (see `dispatch.copied_weights`)."""

    body: Body
    kept: tuple[Kept, ...]
    copied: int


def not_stepwise(graph: Graph) -> str:
    """Why a graph cannot be computed a few positions at a time; empty where it can."""
    nodes = lowered(graph)
    return next(filter(None, (_fault(nodes, node) for node in nodes)), "")


def emit_step(graph: Graph, d_model: int, owner: str = "", rotary: bool = False) -> Step:
    """The block's code for a few new positions, at this width; ValueError where there is none (see
    `not_stepwise`). `owner` stands before the names of weights; `rotary` is as in `lowered`."""
    if reason := not_stepwise(graph):
        raise ValueError(reason)
    nodes, specs = lowered(graph, rotary), weight_specs(graph, d_model)
    own = row_functions(nodes)
    taken = {**own, CACHE: None, START: None}
    options = replace(ONE_TOKEN, rotary=rotary)
    routed = strategies(nodes, d_model, options)
    emitter = _StepEmitter(nodes, routed, specs, taken, owner, options)
    for position in range(len(nodes)):
        emitter.add(position)
    kept, statements = tuple(emitter.kept), tuple(emitter.statements)
    if kept:
        statements = (Assignment(tuple(each.name for each in kept), Name(CACHE)), *statements)
    said = [*(statement.value for statement in statements), *(each.value for each in kept)]
    result, functions = emitter.scope.variables[-1], tuple(own.values())
    body = Body(statements, result, specs, mentioned(*said), row_functions=functions)
    return Step(body, kept, copied_weights(nodes, routed, d_model))


def _fault(nodes: Sequence[Node], node: Node) -> str:
    """Why a node cannot be computed a few positions at a time; empty where it can."""
    row = PRIMITIVES.get(node.op)
    if row is None:
        return ""
    rule, at = row.stepwise, f"{node.op} ({node.name})"
    if rule is None:
        return f"{at} does not say how it works a few positions at a time"
    if not rule.looks_back:
        return ""
    read = [nodes[child].type for child in node.inputs]
    looked_at = read[1:] if rule.every == ("y",) else read
    if any(state.axis == KEYS and not state.closed for state in looked_at):
        return f"{at} runs along the sequence over key positions that no MASK has closed"
    if any(state.axis == ENTRIES or buffer(state.branches) for state in looked_at):
        return f"{at} runs along the sequence over a sparse state or an expert's slots"
    return ""


class _StepEmitter(Emitter):
    """Adds a step's statements: those of `Emitter`, each node by itself, and what is kept."""

    kept: list[Kept]

    def add(self, position: int) -> None:
        if position == 0:
            self.joint, self.inside_another, self.fused_scores = {}, set(), set()
            self.kept, self.names_kept = [], dict[tuple[object, ...], str]()
        super().add(position)

    def add_value(self, position: int) -> str:
        """The statement of a node, and its last position if the next step reads that."""
        target = super().add_value(position)
        node, row = self.nodes[position], PRIMITIVES.get(self.nodes[position].op)
        if row is not None and row.stepwise is not None and row.stepwise.carried is not None:
            name, last = self.names_kept["carried", position], call("last_rows", Name(target), 1)
            self.kept.append(Kept(name, last, node.type, 1, row.stepwise.carried))
        return target

    def value(self, position: int) -> Expression:
        node = self.nodes[position]
        if node.op == ATTENTION:
            q, k, v = node.inputs
            so_far = [self.with_heads(each, node) for each in (k, v)]
            return call("attend_so_far", self.scope.value(q), *so_far, Name(START))
        if node.op == ROTATED:
            return call("rotated", self.scope.value(node.inputs[0]), Name(START))
        if node.op == SOFTMAX and node.type.axis == KEYS:
            return call("softmax_so_far", self.scope.value(node.inputs[0]), Name(START))
        row = PRIMITIVES.get(node.op)
        return super().value(position) if row is None else self.of_row(position, row)

    def with_heads(self, position: int, node: Node) -> Expression:
        """Keys or values at every position so far, beside which the node's heads can stand."""
        return with_axes(self.nodes[position].type, node.type.branches, self.every(position, None))

    def of_row(self, position: int, row: Primitive) -> Expression:
        """What the row's rule for a few positions says, of the node's inputs."""
        node, rule = self.nodes[position], row.stepwise
        assert rule is not None  # emit_step has looked
        weight, kernels_instead = self.weight(position)
        read = [self.read(row, place, node) for place in range(len(node.inputs))]
        name = self.weights.get(position, "")
        values = holes(self.nodes, node, read, weight, name, self.scope.ids)
        values["start"] = Name(START)
        if rule.carried is not None:
            name = self.names.new(f"{node.name}_last")
            self.names_kept["carried", position] = name
            values["carried"] = Name(name)
        state = self.nodes[node.inputs[0]].type
        code = rule.variants.get(state.axis, rule.code) or row_code(row, state)
        return with_functions(filled(template(code), values), kernels_instead)

    def read(self, row: Primitive, place: int, node: Node) -> Expression:
        """Input number `place` of a row: the new positions, or also those before them."""
        position, rule = node.inputs[place], row.stepwise
        assert rule is not None
        child, fill = self.nodes[position], fill_of(row, place, self.nodes[position])
        if "xy"[place] in rule.every:
            value: Expression = self.every(position, fill)
        elif rule.before and place == 0:
            value = self.recent(position, fill, rule.before)
        else:
            value = self.shown(position, fill)
        return with_axes(child.type, node.type.branches, value) if row.aligned else value

    def shown(self, position: int, fill: float | None) -> Expression:
        """A state at the new positions, its invisible entries set to `fill` where that is given."""
        value = self.scope.value(position)
        return value if fill is None else call("hide_later", value, fill, Name(START))

    def every(self, position: int, fill: float | None) -> Name:
        """A state at every position so far."""
        return self.gather(position, fill, None, "so_far")

    def recent(self, position: int, fill: float | None, before: int) -> Name:
        """A state at the new positions and so many before them."""
        return self.gather(position, fill, before, "recent")

    def gather(self, position: int, fill: float | None, before: int | None, word: str) -> Name:
        """The name of a state's earlier and new positions; a statement joins them once."""
        key = (position, fill, before)
        if key not in self.names_kept:
            name = self.names_kept[key] = self.names.new(f"{self.scope.variables[position]}_{word}")
            new = self.shown(position, fill)
            joined = call("join_rows", Name(name), new)
            value: Expression = Name(name)
            if before is None:
                joined = call("write_rows", Name(name), new, Name(START))
            else:
                value = call("last_rows", Name(name), before)
            self.statements.append(Assignment(name, joined))
            self.kept.append(Kept(name, value, self.nodes[position].type, before))
        return Name(self.names_kept[key])
