"""A graph as straight-line keras.ops code.

What a candidate trains with and what an exported layer says are these same statements: one
assignment a node, named after the program's states, in canonical order. Weights follow in that
order too, so equal hashes mean equal weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from primitives.graph.build import COMBINE, CONCAT, DISPATCH, INPUT, KEEP, Graph, Node
from primitives.kernels import kernels
from primitives.lowering.dispatch import LoweringOptions, Strategy, inside_of, regions, strategies
from primitives.lowering.expression import (
    Assignment,
    Expression,
    Function,
    Mentioned,
    Name,
    Tuple,
    call,
    mentioned,
    with_functions,
)
from primitives.lowering.names import state_names
from primitives.lowering.operation import operation, side_by_side, with_axes
from primitives.lowering.render import line
from primitives.lowering.rewrite import Chain, joint_projections, lowered, scores_of_top_k
from primitives.lowering.routed import Scope, combined, dispatched, load
from primitives.lowering.weights import WeightSpec, has_weight, weight_specs
from primitives.ops.table import PRIMITIVES
from primitives.ops.types import ENTRIES


@dataclass(frozen=True, slots=True)
class Body:
    """The code of a block at one width.

    Attributes:
        statements: compute `result` from `x`, the weights, which they call by name, and, if `runs`,
            the pass `run`.
        result: the variable that holds the block's output.
        weights: the block's weights in canonical order.
        mentioned: the functions that the statements call by plain name, kernels and those that
            rows of the table bring along, and the variables that they read.
        gathered: names of weights that are read only a few experts at a time.
        row_functions: what rows of the table bring along.
    """

    statements: tuple[Assignment, ...]
    result: str
    weights: tuple[WeightSpec, ...]
    mentioned: Mentioned
    gathered: frozenset[str] = frozenset()
    row_functions: tuple[Callable[..., Any], ...] = ()

    @property
    def runs(self) -> bool:
        """Whether a pass leaves anything in `run` or reads it."""
        return "run" in self.mentioned.variables

    @property
    def lines(self) -> tuple[str, ...]:
        """The statements as Python, a line each."""
        return tuple(map(line, self.statements))


def emit(
    graph: Graph,
    d_model: int,
    owner: str = "",
    options: LoweringOptions | None = None,
    record_loads: bool = False,
) -> Body:
    """The block's code at this width. `owner` stands before the names of weights, `self.` in a
    layer; `options` are what the block is lowered for; with `record_loads` the code leaves the
    loads of experts in `run.loads`."""
    nodes, specs = lowered(graph), weight_specs(graph, d_model)
    options = options or LoweringOptions()
    own = row_functions(nodes)
    emitter = Emitter(nodes, strategies(nodes, d_model, options), specs, own, owner, options)
    for position in range(len(nodes)):
        emitter.add(position)
        if record_loads and nodes[position].op == COMBINE:
            emitter.add_load(position)
    return Body(
        tuple(emitter.statements),
        emitter.scope.variables[-1],
        specs,
        mentioned(*(statement.value for statement in emitter.statements)),
        frozenset(emitter.gathered),
        tuple(own.values()),
    )


def row_functions(nodes: Iterable[Node]) -> dict[str, Callable[..., Any]]:
    """Functions that rows of the table bring along for their code, by name."""
    found: dict[str, Callable[..., Any]] = {}
    for op in sorted({node.op for node in nodes} & PRIMITIVES.keys()):
        for function in PRIMITIVES[op].functions:
            name = function.__name__
            if name in kernels() or found.setdefault(name, function) is not function:
                raise ValueError(
                    f"function '{name}' of primitive '{op}' has the name of another function that "
                    "programs call; rename it"
                )
    return found


class Emitter:
    """Adds the statements of one node after the other."""

    def __init__(
        self,
        nodes: Sequence[Node],
        routed: dict[int, Strategy],
        specs: Sequence[WeightSpec],
        functions: Iterable[str],
        owner: str,
        options: LoweringOptions,
    ) -> None:
        self.nodes, self.strategies, self.owner, self.options = nodes, routed, owner, options
        self.scope = Scope(nodes)
        self.regions = regions(nodes)
        self.names = state_names((spec.name for spec in specs), functions)
        self.statements: list[Assignment] = []
        self.gathered: set[str] = set()
        weighted = (position for position, node in enumerate(nodes) if has_weight(node))
        self.weights = {place: spec.name for place, spec in zip(weighted, specs, strict=True)}
        groups = joint_projections(nodes)
        self.joint = {each.result: group for group in groups for each in group}
        self.joint_names: dict[int, str] = {}
        self.fused_scores = scores_of_top_k(nodes)
        convolved = {each.projection for each in chain(*groups) if each.convolution is not None}
        self.inside_another = self.fused_scores | convolved

    def add(self, position: int) -> None:
        """The statement of a node, if it has one of its own, and the name of its value."""
        node = self.nodes[position]
        if node.op == INPUT:
            name = "x"
        elif position in self.inside_another:
            name = ""
        elif position in self.joint:
            name = self.joint_name(position)
        elif node.op == DISPATCH:
            name = self.add_dispatch(position)
        else:
            name = self.add_value(position)
        self.scope.variables.append(name)

    def add_value(self, position: int) -> str:
        """`name = ...`, or `name, name_ids = ...` where the node makes indices."""
        value, target = self.value(position), self.names.new(self.nodes[position].name)
        if self.nodes[position].support == position:
            ids = self.scope.ids[position] = self.names.new(f"{target}_ids")
            self.statements.append(Assignment((target, ids), value, (position,)))
        else:
            self.statements.append(Assignment(target, value, (position,)))
        return target

    def value(self, position: int) -> Expression:
        """What a node with a statement of its own computes."""
        node, scope = self.nodes[position], self.scope
        if node.op == COMBINE:
            region = self.regions[node.inputs[0]]
            return combined(scope, node, region, self.strategies[region])
        if node.op == "TOP_K" and node.inputs[0] in self.fused_scores:
            score = node.inputs[0]
            scored = scope.value(self.nodes[score].inputs[0])
            return call("top_scores", scored, self.weight(score)[0], node.count)
        if node.op == KEEP:
            return self.left(position)
        if node.op == CONCAT and node.type.axis == ENTRIES:
            return self.sparse_concat(node)
        weight, kernels_instead = self.weight(position)
        name = self.weights.get(position, "")
        made = operation(self.nodes, node, scope.variables, weight, name, scope.ids, self.options)
        return with_functions(made, kernels_instead)

    def left(self, position: int) -> Expression:
        """Gates without those of experts that were cut."""
        node = self.nodes[position]
        gates, places = node.inputs[0], Name(f"{self.owner}{self.weights[position]}")
        if node.type.axis != ENTRIES:
            return call("keep_scores", self.scope.value(gates), places)
        ids = self.scope.indices(self.nodes[gates], node.type.branches)
        return call("keep_entries", self.scope.with_heads(gates, node.type.branches), ids, places)

    def sparse_concat(self, node: Node) -> Expression:
        """Values and indices of sparse states, side by side."""
        child = self.nodes[node.inputs[0]]
        support = self.nodes[child.support].type
        ids = side_by_side(support, node, Name(self.scope.ids[child.support]))
        values = side_by_side(child.type, node, self.scope.value(node.inputs[0]))
        return Tuple((values, with_axes(support, node.type.branches, ids)))

    def weight(self, position: int) -> tuple[Expression | None, Mapping[str, str]]:
        """How a node reads its weight, and which kernels it calls in place of those that its row
        names: inside a routed call an expert's weight comes to where its tokens are."""
        if position not in self.weights:
            return None, {}
        name = self.weights[position]
        read = Name(f"{self.owner}{name}")
        instead = {"depthwise_conv": "depthwise_taps"} if self.options.fused else {}
        region = self.routed_region(position)
        if region < 0:
            return read, instead
        strategy, depth = self.strategies[region], len(self.nodes[region].context)
        directly = len(self.nodes[position].context) == depth
        if strategy.kind == "entries":
            self.gathered.add(name)
            instead["project"] = "project_entries"
        elif strategy.capacity_factor is not None and directly and not self.options.fused:
            instead["project"] = "project_buffers"
        return call("of_experts", read, Name(self.scope.routes[region]), depth), instead

    def routed_region(self, position: int) -> int:
        """The DISPATCH of the innermost call around a node whose tokens are moved, or -1."""
        region = self.regions[position]
        while region >= 0 and region not in self.scope.routes:
            region = self.regions[inside_of(self.nodes, region)]
        return region

    def add_dispatch(self, position: int) -> str:
        """`slots, route = ...`, or `slots = ...` where every expert has every token."""
        node, strategy = self.nodes[position], self.strategies[position]
        slots = self.names.new(f"{node.name}_slots")
        made = dispatched(self.scope, node, strategy)
        if strategy.kind == "every":
            self.statements.append(Assignment(slots, made, (position,)))
            return slots
        route = self.scope.routes[position] = self.names.new(f"{node.name}_route")
        self.statements.append(Assignment((slots, route), made, (position,)))
        return slots

    def add_load(self, position: int) -> None:
        """`run.loads.append(...)` for a COMBINE."""
        node = self.nodes[position]
        made = load(self.scope, node, self.strategies[self.regions[node.inputs[0]]])
        self.statements.append(Assignment(None, call("run.loads.append", made)))

    def joint_name(self, position: int) -> str:
        """What a projection of several that are computed as one is called; the first one that is
        asked for adds the statement of all."""
        if position not in self.joint_names:
            group = self.joint[position]
            for each in group:
                self.joint_names[each.result] = self.names.new(self.nodes[each.result].name)
            names = tuple(self.joint_names[each.result] for each in group)
            value = self.joint_projection(group)
            self.statements.append(Assignment(names, value, tuple(each.result for each in group)))
        return self.joint_names[position]

    def joint_projection(self, group: tuple[Chain, ...]) -> Expression:
        """One product of matrices, and one convolution, for several projections of one state."""
        rounded = self.options.mixed_precision

        def weights(positions: Iterable[int]) -> Expression:
            named = tuple(Name(f"{self.owner}{self.weights[place]}") for place in positions)
            return call("to_bfloat16", Tuple(named)) if rounded else Tuple(named)

        x: Expression = self.scope.value(self.nodes[group[0].projection].inputs[0])
        x = call("ops.cast", x, "bfloat16") if rounded else x
        matrices = weights(each.projection for each in group)
        made = call("project_all", x, matrices)
        if group[0].convolution is not None:
            taps = weights(each.convolution for each in group if each.convolution is not None)
            depthwise = Function("depthwise_taps" if self.options.fused else "depthwise_conv")
            made = call("project_convolve_all", x, matrices, taps, depthwise)
        return call("to_float32", made) if rounded else made
