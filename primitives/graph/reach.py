"""How far back a block looks: its receptive field."""

from __future__ import annotations

import math
from collections.abc import Sequence

from primitives.graph.build import Graph, Node
from primitives.ops.table import PRIMITIVES


def receptive_field(graph: Graph) -> float:
    """Positions that one position of the block's output may depend on, itself included: 31 after a
    convolution over 31 positions, 1 where each position is computed by itself. It is infinite where
    attention or a running sum reaches the whole sequence, and where a primitive does not say what
    it looks back at (`Primitive.stepwise`)."""
    back: list[float] = []
    for node in graph.nodes:
        back.append(_own(node) + max(_read(node, back), default=0))
    return 1 + back[-1]


def _read(node: Node, back: Sequence[float]) -> list[float]:
    supports = [node.support] if node.support >= 0 else []
    return [back[place] for place in (*node.inputs, *supports) if place < len(back)]


def _own(node: Node) -> float:
    """Earlier positions that the node itself reads."""
    row = PRIMITIVES.get(node.op)
    if row is None:
        return 0
    rule = row.stepwise
    if rule is None or rule.every or rule.carried is not None:
        return math.inf
    return rule.before
