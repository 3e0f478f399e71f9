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
from primitives.lowering.dispatch import (
    LoweringOptions,
    Recorded,
    Strategy,
    inside_of,
    regions,
    strategies,
)
from primitives.lowering.expression import (
    Assignment,
    Call,
    Expression,
    Function,
    Keyword,
    Literal,
    Mentioned,
    Name,
    Tuple,
    call,
    mentioned,
    with_functions,
)
from primitives.lowering.memory import memory_of
from primitives.lowering.names import state_names
from primitives.lowering.operation import operation, side_by_side, with_axes
from primitives.lowering.render import line
from primitives.lowering.rewrite import (
    ATTENTION,
    Chain,
    joint_projections,
    lowered,
    scores_of_top_k,
)
from primitives.lowering.routed import Scope, capacity, choices, combined, dispatched, load
from primitives.lowering.weights import WeightSpec, has_weight, weight_specs
from primitives.ops.state import ENTRIES
from primitives.ops.table import PRIMITIVES


@dataclass(frozen=True, slots=True)
class Body:
    """The code of a block at one width.

    Attributes:
        statements: compute `result` from `x`, the weights, which they call by name, and, if `runs`,
            the pass `run`.
        result: the variable that holds the block's output.
        memory: the variable that holds the state by which contexts are remembered, see `memory`.
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
    memory: str = "x"
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
    record: Recorded = "nothing",
) -> Body:
    """The block's code at this width. `owner` stands before the names of weights, `self.` in a
    layer; `options` are what the block is lowered for; `record` is what the code leaves in `run` of
    each routed call."""
    options = options or LoweringOptions()
    nodes, specs = lowered(graph, options.rotary), weight_specs(graph, d_model)
    own = row_functions(nodes)
    emitter = Emitter(nodes, strategies(nodes, d_model, options), specs, own, owner, options)
    for position in in_order(nodes, emitter.strategies):
        emitter.add(position)
        if nodes[position].op == COMBINE:
            emitter.add_record(position, record)
    return Body(
        tuple(emitter.statements),
        emitter.scope.variables[-1],
        specs,
        mentioned(*(statement.value for statement in emitter.statements)),
        frozenset(emitter.gathered),
        emitter.scope.variables[memory_of(nodes)],
        tuple(own.values()),
    )


def in_order(nodes: Sequence[Node], routed: Mapping[int, Strategy]) -> Iterable[int]:
    """The nodes, each after what it reads: gates that choose tokens come before these are sent."""
    first = {dispatch: each.gates for dispatch, each in routed.items() if each.gates >= 0}
    for each in routed.values():
        if each.passing is not None:
            first |= dict.fromkeys(each.passing.nodes, each.gates)
    if not first:
        return range(len(nodes))
    order: dict[int, None] = {}
    pending = list(reversed(range(len(nodes))))
    while pending:
        position = pending[-1]
        needed = (*nodes[position].inputs, nodes[position].support, first.get(position, -1))
        missing = [each for each in needed if each not in (-1, position) and each not in order]
        if missing and position not in order:
            pending.extend(reversed(missing))
        else:
            order[pending.pop()] = None
    return order


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
        self.scope = Scope(nodes, [""] * len(nodes))
        self.regions = regions(nodes)
        self.names = state_names((spec.name for spec in specs), functions)
        self.statements: list[Assignment] = []
        self.gathered: set[str] = set()
        weighted = (position for position, node in enumerate(nodes) if has_weight(node))
        self.weights = {place: spec.name for place, spec in zip(weighted, specs, strict=True)}
        self.packed: dict[int, Strategy] = {}
        for strategy in routed.values():
            if (found := strategy.passing) is not None:
                self.packed |= dict.fromkeys(found.nodes | found.edges, strategy)
        self.pack_names: dict[tuple[int, int], str] = {}
        groups = joint_projections(nodes, self.packed)
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
        elif position in self.packed:
            name = self.add_packed(position, self.packed[position])
        elif position in self.joint:
            name = self.joint_name(position)
        elif node.op == DISPATCH:
            name = self.add_dispatch(position)
        else:
            name = self.add_value(position)
        self.scope.variables[position] = name

    def add_packed(self, position: int, strategy: Strategy) -> str:
        """The statement of a node that is computed on the rows that a gate leaves open. What it
        reads of other nodes is packed first; one that multiplies by the gate gives all rows."""
        node, found, variables = self.nodes[position], strategy.passing, self.scope.variables
        assert found is not None
        before = dict(enumerate(variables))
        for place, child in enumerate(node.inputs):
            if child not in found.nodes and (place == 0 or node.op != ATTENTION):
                variables[child] = self.packed_name(child, strategy)
        if node.op == DISPATCH:
            name = self.add_dispatch(position)
        else:
            value, rows = self.value(position), self.rows_name(strategy)
            if node.op == ATTENTION and isinstance(value, Call):
                where = Keyword("positions", Name(f"{rows}.positions"))
                value = Call("attention", (*value.arguments, where))
            if position in found.edges:
                value = call("unpack_rows", value, Name(rows), Name(before[strategy.gates]))
            name = self.names.new(node.name)
            self.statements.append(Assignment(name, value, (position,)))
        for child in node.inputs:
            variables[child] = before[child]
        return name

    def rows_name(self, strategy: Strategy) -> str:
        """Where the rows lie that a gate leaves open; a statement finds them once."""
        key = (strategy.gates, -1)
        if key not in self.pack_names:
            name = self.pack_names[key] = self.names.new(f"{self.nodes[strategy.gates].name}_rows")
            gate, dynamic = self.scope.value(strategy.gates), self.options.dynamic
            found = call("open_rows", gate, capacity(strategy), dynamic)
            self.statements.append(Assignment(name, found))
        return self.pack_names[key]

    def packed_name(self, position: int, strategy: Strategy) -> str:
        """A node's value at the rows that a gate leaves open; a statement packs it once."""
        key = (strategy.gates, position)
        if key not in self.pack_names:
            rows = Name(self.rows_name(strategy))
            name = self.names.new(f"{self.nodes[position].name}_packed")
            value = call("pack_rows", self.scope.value(position), rows)
            self.pack_names[key] = name
            self.statements.append(Assignment(name, value))
        return self.pack_names[key]

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
        if strategy.kind == "runs" and "project(" in PRIMITIVES[self.nodes[position].op].code:
            route = Name(self.scope.routes[region])
            return Tuple((read, route, Literal(depth))), {"project": "project_runs"}
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
        if strategy.kind in ("every", "rows"):
            self.statements.append(Assignment(slots, made, (position,)))
            return slots
        route = self.scope.routes[position] = self.names.new(f"{node.name}_route")
        self.statements.append(Assignment((slots, route), made, (position,)))
        return slots

    def add_record(self, position: int, record: Recorded) -> None:
        """`run.loads.append(...)` for a COMBINE, or `run.choices.append(...)`: of a call inside
        another one no choices are left, since its tokens lie in slots."""
        node = self.nodes[position]
        if record == "loads":
            made = load(self.scope, node, self.strategies[self.regions[node.inputs[0]]])
            self.statements.append(Assignment(None, call("run.loads.append", made)))
        elif record == "choices" and all(size > 0 for size in node.context[:-1]):
            made = choices(self.scope, node)
            self.statements.append(Assignment(None, call("run.choices.append", made)))

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
