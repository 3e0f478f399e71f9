"""A graph as straight-line keras.ops source.

What a candidate trains with and what an exported layer says are these same lines: one assignment a
node, named after the program's states, in canonical order. Weights follow in that order too, so
equal hashes mean equal weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from primitives.graph.build import COMBINE, CONCAT, DISPATCH, INPUT, Graph, Node
from primitives.lowering.dispatch import (
    LoweringOptions,
    Strategy,
    inside_of,
    regions,
    strategies,
    weight_shape,
)
from primitives.lowering.rewrite import (
    ATTENTION,
    CENTRED,
    OVER_RMS,
    RELU,
    SOFTMAX,
    Chain,
    lowered,
    joint_projections,
    scores_of_top_k,
)
from primitives.ops.table import PRIMITIVES, Init, Primitive
from primitives.ops.types import COUNT, ENTRIES, KEYS, StateType

KERNELS = (
    "assign", "attention", "balance", "balance_bias", "centred", "collect", "conv",
    "depthwise_conv", "depthwise_taps", "flash_attention", "hash_experts", "hide",
    "importance_loss", "load_loss", "masked_softmax", "merge_branches", "narrowed", "noise",
    "of_experts", "over_rms", "pair_entries", "pair_scores", "project", "project_all",
    "project_buffers", "project_convolve_all", "project_entries", "reciprocal", "reinforce",
    "repeat_features", "sparsity_loss", "spread_entries", "sum_entries", "sum_experts",
    "switch_loss", "take_entries", "threshold", "to_blocks", "to_buffers", "to_entries",
    "to_every_expert", "top_entries", "top_k", "top_positions", "top_scores", "uniform",
    "visible_mean", "widened", "z_loss",
)  # fmt: skip
"""Functions of primitives' kernels, routing and balancing that lines may call: no state may take
their names."""

_MEASURES = ("expert_load", "gate_load")


@dataclass(frozen=True, slots=True)
class WeightSpec:
    """One weight of a block: a unique name, its shape with the branch axes first, how it starts
    (see `table.Weight`), how many inputs one of its outputs sums, and whether it is trained."""

    name: str
    shape: tuple[int, ...]
    init: Init
    fan_in: int
    trainable: bool = True


@dataclass(frozen=True, slots=True)
class Body:
    """Source of a block at one width. `lines` compute `result` from `x`, the weights, which they
    call by name, and, if `runs`, the pass `run`; `made` says which nodes of
    `rewrite.lowered` each line makes;
    `kernels` are the functions that they use.
    `gathered` names the weights that are read only a few experts at a time."""

    lines: tuple[str, ...]
    result: str
    weights: tuple[WeightSpec, ...]
    made: tuple[tuple[int, ...], ...]
    kernels: tuple[str, ...]
    gathered: frozenset[str] = frozenset()

    @property
    def runs(self) -> bool:
        return any(re.search(r"\brun\b", line) for line in self.lines)


def weight_specs(graph: Graph, d_model: int) -> tuple[WeightSpec, ...]:
    """The block's weights at this width, in canonical order."""
    names = _Names()
    specs = []
    for node in graph.nodes:
        row = PRIMITIVES.get(node.op)
        if row is not None and row.weight is not None:
            shape = weight_shape(node.op, graph.nodes[node.inputs[0]].type, node.type, d_model)
            name = names.new(f"{node.name}_{'kernel' if 'CONV' in node.op else node.op.lower()}")
            branches = tuple(abs(n) for n in node.context)
            trained, fan_in = row.weight.trainable, math.prod(shape[:-1])
            specs.append(WeightSpec(name, (*branches, *shape), row.weight.init, fan_in, trained))
    return tuple(specs)


def emit(
    graph: Graph, d_model: int, weight: str = "{}", options: LoweringOptions | None = None,
    measured: bool = False,
) -> Body:  # fmt: skip
    """The block's source at this width. `weight` says how a line refers to a weight by name;
    `options` are what routed calls are lowered for; a `measured` body leaves their loads in
    `run.loads`."""
    specs = weight_specs(graph, d_model)
    nodes = lowered(graph)
    options = options or LoweringOptions()
    routes = strategies(nodes, d_model, options)
    writer = _Writer(nodes, routes, specs, weight, measured, options)
    for node in nodes:
        writer.write(node)
    text = " ".join(writer.lines)
    used = set(re.findall(r"(?<![\w.])([a-z_]+)\(", text)) | set(
        re.findall("depthwise_[a-z]+", text)
    )
    lines, result = tuple(writer.lines), writer.variables[-1]
    gathered = frozenset(writer.gathered)
    return Body(lines, result, specs, tuple(writer.made), tuple(sorted(used)), gathered)


class _Writer:
    """Writes one line a node; `variables` and `ids` are the names that values and indices go by."""

    def __init__(
        self, nodes: Sequence[Node], routes: dict[int, Strategy], specs: Sequence[WeightSpec],
        weight: str, measured: bool, options: LoweringOptions,
    ) -> None:  # fmt: skip
        self.nodes, self.strategies, self.weight, self.measured = nodes, routes, weight, measured
        self.options = options
        self.around = regions(nodes)
        taken = {"x", "ops", "self", "run", *KERNELS, *_MEASURES, *(spec.name for spec in specs)}
        self.names = _Names(taken)
        self.variables: list[str] = []
        self.ids: dict[int, str] = {}
        self.routes: dict[int, str] = {}
        self.lines: list[str] = []
        self.made: list[tuple[int, ...]] = []
        self.merged = {
            chain.result: chains for chains in joint_projections(nodes) for chain in chains
        }
        self.inner = {
            chain.projection for chains in self.merged.values() for chain in chains
            if chain.convolution is not None
        }  # fmt: skip
        self.reserved: dict[int, str] = {}
        self.chosen = scores_of_top_k(nodes)
        weighted = (i for i, node in enumerate(nodes) if _weighted(node))
        self.weights = {place: spec.name for place, spec in zip(weighted, specs, strict=True)}
        self.gathered: set[str] = set()
        self.buffered: set[str] = set()

    def write(self, node: Node) -> None:
        position = len(self.variables)
        if node.op == INPUT:
            self.variables.append("x")
            return
        reference = name = ""
        if _weighted(node):
            name = self.weights[position]
            reference = self.owned(position, name)
        if position in self.chosen:  # part of the line that its top-k is in
            self.variables.append("")
            return
        if position in self.inner:  # part of the line that its convolution is in
            self.variables.append("")
            return
        if position in self.merged:
            if position not in self.reserved:
                self.together(self.merged[position])
            self.variables.append(self.reserved[position])
            return
        if node.op == DISPATCH:
            self.dispatch(position, node)
            return
        if node.op == COMBINE:
            code = self.combined(node)
        elif node.op == "TOP_K" and node.inputs[0] in self.chosen:
            score = node.inputs[0]
            source = self.variables[self.nodes[score].inputs[0]]
            code = f"top_scores({source}, {self.owned(score, self.weights[score])}, {node.count})"
        elif node.op == CONCAT and node.type.axis == ENTRIES:
            code = f"{self.concatenated(node)}, {self.concatenated_ids(node)}"
        else:
            code = expression(
                self.nodes, node, self.variables, reference, name, self.ids, self.options
            )
            if name in self.gathered:
                code = re.sub(r"\bproject\(", "project_entries(", code)
            if name in self.buffered and not self.options.fused:
                code = re.sub(r"\bproject\(", "project_buffers(", code)
            if self.options.fused:
                code = code.replace("depthwise_conv(", "depthwise_taps(")
        self.variables.append(self.names.new(node.name))
        target = self.variables[-1]
        if node.support == position:
            self.ids[position] = self.names.new(f"{target}_ids")
            target = f"{target}, {self.ids[position]}"
        self.add(f"{target} = {code}", position)
        if node.op == COMBINE and self.measured:
            self.add(f"run.loads.append({self.load(node)})")

    def add(self, line: str, *made: int) -> None:
        self.lines.append(line)
        self.made.append(made)

    def together(self, chains: tuple[Chain, ...]) -> None:
        """One line for projections that are computed as one."""
        first = self.nodes[chains[0].projection]
        for chain in chains:
            self.reserved[chain.result] = self.names.new(self.nodes[chain.result].name)
        names = ", ".join(self.reserved[chain.result] for chain in chains)
        x = self.variables[first.inputs[0]]
        kernels = self.tuple_of(chain.projection for chain in chains)
        if self.options.narrow:
            x, kernels = f'ops.cast({x}, "bfloat16")', f"narrowed({kernels})"
        code = f"project_all({x}, {kernels})"
        if chains[0].convolution is not None:
            taps = self.tuple_of(chain.convolution for chain in chains if chain.convolution)
            taps = f"narrowed({taps})" if self.options.narrow else taps
            depthwise = "depthwise_taps" if self.options.fused else "depthwise_conv"
            code = f"project_convolve_all({x}, {kernels}, {taps}, {depthwise})"
        code = f"widened({code})" if self.options.narrow else code
        names = f"({names},)" if len(chains) == 1 else names
        self.add(f"{names} = {code}", *(chain.result for chain in chains))

    def tuple_of(self, positions: Iterable[int]) -> str:
        names = [self.weight.format(self.weights[position]) for position in positions]
        return f"({', '.join(names)}{',' if len(names) == 1 else ''})"

    def owned(self, position: int, name: str) -> str:
        """A weight as the tokens of the routed call around it need it."""
        reference = self.weight.format(name)
        region = self.around[position]
        while region >= 0 and region not in self.routes:
            region = self.around[inside_of(self.nodes, region)]
        if region < 0:
            return reference
        depth = len(self.nodes[region].context)
        strategy = self.strategies[region]
        if strategy.kind == "entries":
            self.gathered.add(name)
        elif strategy.capacity_factor is not None and len(self.nodes[position].context) == depth:
            self.buffered.add(name)
        return f"of_experts({reference}, {self.routes[region]}, {depth})"

    def dispatch(self, position: int, node: Node) -> None:
        strategy, child = self.strategies[position], self.nodes[node.inputs[0]]
        x = _with_axes(child.type, node.context[:-1], self.variables[node.inputs[0]])
        slots = self.names.new(f"{node.name}_slots")
        self.variables.append(slots)
        if strategy.kind == "every":
            self.add(f"{slots} = to_every_expert({x})", position)
            return
        self.routes[position] = self.names.new(f"{node.name}_route")
        arguments = f"{x}, {self.indices(node, node.context[:-1])}, {-node.context[-1]}, "
        arguments += f"{tuple(node.context[:-1])}"
        code = f"to_entries({arguments})"
        if strategy.kind == "blocks":
            code = f"to_blocks({arguments}, {strategy.block})"
        if strategy.capacity_factor is not None:
            code = (
                f"to_buffers({arguments}, {strategy.capacity_factor!r}) if run.training else {code}"
            )
        self.add(f"{slots}, {self.routes[position]} = {code}", position)

    def combined(self, node: Node) -> str:
        value, gates = node.inputs
        region, heads = self.around[value], node.context[:-1]
        weights = _with_axes(self.nodes[gates].type, heads, self.variables[gates])
        if region in self.routes and self.strategies[region].kind == "entries":
            return f"sum_entries({self.variables[value]}, {weights}, {heads})"
        if region in self.routes:
            return f"collect({self.variables[value]}, {weights}, {self.routes[region]}, {heads})"
        if self.nodes[gates].type.axis == ENTRIES:
            ids = self.indices(self.nodes[gates], heads)
            weights = f"spread_entries({weights}, {ids}, {-node.context[-1]})"
        return f"sum_experts({self.variables[value]}, {weights})"

    def load(self, node: Node) -> str:
        gates = self.nodes[node.inputs[1]]
        name = self.variables[node.inputs[1]]
        if gates.type.axis == COUNT:
            return f"gate_load({name})"
        strategy = self.strategies[self.around[node.inputs[0]]]
        ids = self.indices(gates, gates.type.branches)
        return f"expert_load({name}, {ids}, {gates.type.domain}, {strategy.capacity_factor})"

    def indices(self, node: Node, branches: tuple[int, ...]) -> str:
        """The indices that a DISPATCH reads, or those of a sparse state, with these branch axes."""
        support = node.inputs[1] if node.op == DISPATCH else node.support
        return _with_axes(self.nodes[support].type, branches, self.ids[support])

    def concatenated(self, node: Node) -> str:
        return _side_by_side(self.nodes[node.inputs[0]].type, node, self.variables[node.inputs[0]])

    def concatenated_ids(self, node: Node) -> str:
        support = self.nodes[node.inputs[0]].support
        state = self.nodes[support].type
        return _with_axes(state, node.type.branches, _side_by_side(state, node, self.ids[support]))


def _weighted(node: Node) -> bool:
    row = PRIMITIVES.get(node.op)
    return row is not None and row.weight is not None


def _side_by_side(child: StateType, node: Node, name: str) -> str:
    if len(child.branches) > len(node.type.branches):
        return f"merge_branches({name}, {int(node.value)})"
    return f"repeat_features({name}, {int(node.value)})"


def expression(
    nodes: Sequence[Node], node: Node, variables: Sequence[str], weight: str, name: str = "",
    ids: dict[int, str] | None = None, options: LoweringOptions | None = None,
) -> str:  # fmt: skip
    """The keras.ops expression of one node; `variables` are the names that `nodes` go by, `ids`
    those of indices by the node that made them; `name` is the weight's."""
    narrow = options is not None and options.narrow
    inputs = [nodes[child] for child in node.inputs]
    names = [variables[child] for child in node.inputs]
    if node.op == CONCAT:
        return _side_by_side(inputs[0].type, node, names[0])
    if node.op == SOFTMAX:
        if node.type.axis == KEYS:
            return f"masked_softmax({names[0]})"
        return f"ops.softmax({names[0]}, axis=-1)"
    if node.op == RELU:
        return f"ops.relu({names[0]})"
    if node.op == CENTRED:
        return f"centred({names[0]})"
    if node.op == OVER_RMS:
        return f"over_rms({names[0]}, {float(node.value)!r})"
    if node.op == ATTENTION:
        flash = "flash_" if options is not None and options.flash else ""
        return f"{flash}attention({', '.join(names)}, {narrow})"
    row = PRIMITIVES[node.op]
    for position, child in enumerate(inputs):
        names[position] = _prepared(row, position, child, names[position], node.type)
    indices = [
        _with_axes(nodes[child.support].type, node.type.branches, (ids or {})[child.support])
        if child.support >= 0 else ""
        for child in inputs
    ]  # fmt: skip
    code = row.variants.get(inputs[0].type.axis, row.code)
    if narrow and row.narrow:
        names = [f'ops.cast({each}, "bfloat16")' for each in names]
        weight = f'ops.cast({weight}, "bfloat16")'
        code = f'ops.cast({code}, "float32")'
    return code.format(
        x=names[0], y=names[-1], xi=indices[0], yi=indices[-1],
        n=inputs[0].type.domain or inputs[0].type.size,
        m=inputs[-1].type.domain or inputs[-1].type.size,
        c=repr(float(node.value)), k=node.count, w=weight, name=name,
        v=f"{weight}[..., None, :]" if node.context else weight,
    )  # fmt: skip


def _prepared(row: Primitive, position: int, child: Node, name: str, made: StateType) -> str:
    """An input with its invisible entries filled and the branch axes of the result."""
    fill = row.hidden[position]
    zeroed = child.op in ("MASK", SOFTMAX)
    if fill is not None and child.type.closed and not (zeroed and fill == 0):
        name = f"hide({name}, {fill!r})"
    return _with_axes(child.type, made.branches, name) if row.aligned else name


def _with_axes(state: StateType, branches: tuple[int, ...], name: str) -> str:
    """A state with axes of size 1 for the branches that it does not have."""
    missing = len(branches) - len(state.branches)
    if missing <= 0:
        return name
    axes = [":"] * (1 + len(state.branches)) + ["None"] * missing
    return f"{name}[{', '.join(axes)}]"


class _Names:
    """Gives each state a Python name of its own."""

    def __init__(self, taken: set[str] | None = None) -> None:
        self.taken = set() if taken is None else taken

    def new(self, wanted: str) -> str:
        base = re.sub(r"\W+", "_", wanted)
        name, count = base, 1
        while name in self.taken:
            count += 1
            name = f"{base}_{count}"
        self.taken.add(name)
        return name
