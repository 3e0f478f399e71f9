"""A graph as straight-line keras.ops source.

What a candidate trains with and what an exported layer says are these same lines: one assignment a
node, named after the program's states, in canonical order. Weights follow in that order too, so
equal hashes mean equal weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from primitives.graph import CONCAT, INPUT, Graph, Node
from primitives.rewrite import SOFTMAX, lowered
from primitives.table import PRIMITIVES, Init, Primitive
from primitives.types import CHANNELS, KEYS, UNITS_PER_WIDTH, StateType

KERNELS = (
    "conv", "depthwise_conv", "hide", "masked_softmax", "merge_branches", "project", "reciprocal",
    "repeat_features", "visible_mean",
)  # fmt: skip
"""Functions of primitives.kernels that lines may call: no state may take their names."""


@dataclass(frozen=True, slots=True)
class WeightSpec:
    """One weight of a block: a unique name, its shape with the branch axes first, how it starts
    (see `table.Weight`), and how many inputs one of its outputs sums."""

    name: str
    shape: tuple[int, ...]
    init: Init
    fan_in: int


@dataclass(frozen=True, slots=True)
class Body:
    """Source of a block at one width. `lines` compute `result` from `x` and the weights, which
    they call by name; `kernels` are the functions of primitives.kernels that they use directly."""

    lines: tuple[str, ...]
    result: str
    weights: tuple[WeightSpec, ...]
    kernels: tuple[str, ...]


def feature_size(state: StateType, d_model: int, sequence_length: int) -> int:
    """Scalars on a state's feature axis."""
    if state.axis == KEYS:
        return sequence_length
    return state.size * d_model // UNITS_PER_WIDTH if state.axis == CHANNELS else state.size


def weight_specs(graph: Graph, d_model: int) -> tuple[WeightSpec, ...]:
    """The block's weights at this width, in canonical order."""
    names = _Names()
    specs = []
    for node in graph.nodes:
        row = PRIMITIVES.get(node.op)
        if row is not None and row.weight is not None:
            inputs = feature_size(graph.nodes[node.inputs[0]].type, d_model, 0)
            outputs = feature_size(node.type, d_model, 0)
            shape = row.weight.shape(inputs, outputs)
            name = names.new(f"{node.name}_{'kernel' if 'CONV' in node.op else node.op.lower()}")
            fan_in = math.prod(shape[:-1])
            specs.append(WeightSpec(name, (*node.context, *shape), row.weight.init, fan_in))
    return tuple(specs)


def emit(graph: Graph, d_model: int, weight: str = "{}") -> Body:
    """The block's source at this width; `weight` says how a line refers to a weight by name."""
    specs = weight_specs(graph, d_model)
    remaining = iter(specs)
    names = _Names(taken={"x", "ops", "self", *KERNELS, *(spec.name for spec in specs)})
    nodes = lowered(graph)
    variables: list[str] = []
    lines: list[str] = []
    for node in nodes:
        if node.op == INPUT:
            variables.append("x")
            continue
        row = PRIMITIVES.get(node.op)
        owned = row is not None and row.weight is not None
        reference = weight.format(next(remaining).name) if owned else ""
        code = expression(nodes, node, variables, reference)
        variables.append(names.new(node.name))
        lines.append(f"{variables[-1]} = {code}")
    used = set(re.findall(r"(?<![\w.])([a-z_]+)\(", " ".join(lines)))
    return Body(tuple(lines), variables[-1], specs, tuple(sorted(used)))


def expression(nodes: Sequence[Node], node: Node, variables: Sequence[str], weight: str) -> str:
    """The keras.ops expression of one node; `variables` are the names that `nodes` go by."""
    inputs = [nodes[child] for child in node.inputs]
    names = [variables[child] for child in node.inputs]
    if node.op == CONCAT:
        if len(inputs[0].type.branches) > len(node.type.branches):
            return f"merge_branches({names[0]})"
        return f"repeat_features({names[0]}, {int(node.value)})"
    if node.op == SOFTMAX:
        if node.type.axis == KEYS:
            return f"masked_softmax({names[0]})"
        return f"ops.softmax({names[0]}, axis=-1)"
    row = PRIMITIVES[node.op]
    for position, child in enumerate(inputs):
        names[position] = _prepared(row, position, child, names[position], node.type)
    over_keys = row.over_keys is not None and inputs[0].type.axis == KEYS
    code = row.over_keys if over_keys and row.over_keys else row.code
    return code.format(x=names[0], y=names[-1], c=repr(float(node.value)), w=weight)


def _prepared(row: Primitive, position: int, child: Node, name: str, made: StateType) -> str:
    """An input with its invisible entries filled and the branch axes of the result."""
    fill = row.hidden[position]
    zeroed = child.op in ("MASK", SOFTMAX)
    if fill is not None and child.type.closed and not (zeroed and fill == 0):
        name = f"hide({name}, {fill!r})"
    missing = len(made.branches) - len(child.type.branches)
    if row.aligned and missing:
        axes = [":"] * (1 + len(child.type.branches)) + ["None"] * missing
        name = f"{name}[{', '.join(axes)}]"
    return name


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
