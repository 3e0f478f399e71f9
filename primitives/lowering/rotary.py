"""Rotary positions (Su et al. 2021, arXiv 2104.09864), for programs in which nobody knows which
states are queries and which are keys.

Only one primitive lets two positions of a sequence meet by what they hold: T-MAT MUL, whose entry
(t, s) is the product of x at t and y at s. So both of its inputs are rotated by their positions,
whatever they are, and the product depends on t - s beside the states themselves. In a seed program
these are queries and keys, and what comes out is rotary attention as published.

An input is rotated where its features are channels or counted units. Over key positions they are
positions themselves: to mix two of them would let one see another, so there nothing is rotated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from primitives.graph.build import Node
from primitives.ops.state import CHANNELS, COUNT

ROTATED = "ROTATED"
"""A state whose features are rotated by its positions; see `positions.rotated`."""

FLOPS = 3
"""Of each entry that is rotated: two products and a sum."""


def is_rotated(nodes: Sequence[Node], node: Node, child: int) -> bool:
    """Whether `node` reads its input `child` rotated."""
    return node.op == "T-MAT MUL" and nodes[child].type.axis in (CHANNELS, COUNT)


def rotated_states(nodes: Sequence[Node]) -> set[int]:
    """Positions of the nodes that some product reads rotated; each is rotated once for all."""
    return {child for node in nodes for child in node.inputs if is_rotated(nodes, node, child)}


def with_rotated(nodes: Iterable[Node]) -> list[Node]:
    """The nodes with a ROTATED one after each state that a product reads so, numbered anew."""
    before = list(nodes)
    wanted, moved, turned = rotated_states(before), dict[int, int](), dict[int, int]()
    made: list[Node] = []
    for position, node in enumerate(before):
        inputs = tuple(
            turned[child] if is_rotated(before, node, child) else moved[child]
            for child in node.inputs
        )
        moved[position] = len(made)
        # A state's indices may come from the node itself.
        support = moved[node.support] if node.support >= 0 else -1
        made.append(node._replace(inputs=inputs, support=support))
        if position in wanted:
            turned[position] = len(made)
            name = f"{node.name}.rotated" if node.inputs else "x.rotated"
            made.append(Node(ROTATED, (moved[position],), 0, (), node.type, name))
    return made
