"""A block's weights at a width: their names, shapes and start."""

from __future__ import annotations

import math
from dataclasses import dataclass

from primitives.graph.build import KEEP, Graph, Node
from primitives.lowering.dispatch import weight_shape
from primitives.lowering.names import Names
from primitives.ops.table import PRIMITIVES, Init


@dataclass(frozen=True, slots=True)
class WeightSpec:
    """One weight of a block: a unique name, its shape with the branch axes first, how it starts
    (see `primitive.Weight`), how many inputs one of its outputs sums, and whether it is trained."""

    name: str
    shape: tuple[int, ...]
    init: Init
    fan_in: int
    trainable: bool = True


def weight_specs(graph: Graph, d_model: int) -> tuple[WeightSpec, ...]:
    """The block's weights at this width, in canonical order."""
    names = Names()
    specs = []
    for node in graph.nodes:
        row = PRIMITIVES.get(node.op)
        if row is not None and row.weight is not None:
            shape = weight_shape(node.op, graph.nodes[node.inputs[0]].type, node.type, d_model)
            name = names.new(f"{node.name}_{'kernel' if 'CONV' in node.op else node.op.lower()}")
            branches = tuple(abs(n) for n in node.context)
            trained, fan_in = row.weight.trainable, math.prod(shape[:-1])
            specs.append(WeightSpec(name, (*branches, *shape), row.weight.init, fan_in, trained))
        elif node.op == KEEP:
            name = names.new(f"{node.name}_places")
            specs.append(WeightSpec(name, (node.count,), "table", 1, trainable=False))
    return tuple(specs)


def has_weight(node: Node) -> bool:
    """Whether the node's operation has a weight."""
    row = PRIMITIVES.get(node.op)
    return node.op == KEEP or (row is not None and row.weight is not None)
