"""Rewrites of the canonical graph that keep its meaning and gain stability or speed.

The hash and the static cost belong to the graph as it is; only lowering reads the rewritten one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from primitives.graph import Graph, Node
from primitives.types import KEYS

SOFTMAX = "SOFTMAX"
"""exp(x) over its sum, the largest x subtracted first; over visible entries if x is over S."""


def lowered(graph: Graph) -> tuple[Node, ...]:
    """The nodes to lower, inputs first: each softmax in one node, unreachable nodes left out."""
    nodes = list(graph.nodes)
    for index, node in enumerate(nodes):
        scores = _softmax_of(nodes, node)
        if scores is not None:
            nodes[index] = node._replace(op=SOFTMAX, inputs=(scores,))
    return _reachable(nodes)


def _softmax_of(nodes: list[Node], node: Node) -> int | None:
    """The node z if `node` is exp(z) / sum(exp(z)), masked before or after exp if over S."""
    if node.op != "DIVIDE":
        return None
    above, below = node.inputs
    if nodes[below].op != "RED SUM" or nodes[below].inputs != (above,):
        return None
    exponential = nodes[above]
    if exponential.type.axis == KEYS and exponential.op == "MASK":
        exponential = nodes[exponential.inputs[0]]
    return exponential.inputs[0] if exponential.op == "EXP" else None


def _reachable(nodes: list[Node]) -> tuple[Node, ...]:
    needed = [False] * len(nodes)
    needed[0] = needed[-1] = True
    for index in range(len(nodes) - 1, -1, -1):
        if needed[index]:
            for child in nodes[index].inputs:
                needed[child] = True
            if nodes[index].support >= 0:
                needed[nodes[index].support] = True
    number: dict[int, int] = {}
    kept: list[Node] = []
    for index, node in enumerate(nodes):
        if needed[index]:
            number[index] = len(kept)
            inputs = tuple(number[child] for child in node.inputs)
            kept.append(node._replace(inputs=inputs, support=number.get(node.support, -1)))
    return tuple(kept)


MANY = 128
"""Scores from which their gradient is worth passing through the chosen ones alone."""


def scored(nodes: Sequence[Node]) -> set[int]:
    """Scores over many experts or keys that a top-k alone reads: the two are computed as one."""
    readers = Counter(child for node in nodes for child in node.inputs)
    return {
        score
        for node in nodes
        if node.op == "TOP_K"
        and nodes[score := node.inputs[0]].op == "SCORE"
        and readers[score] == 1
        and nodes[score].count >= MANY
        and nodes[nodes[score].inputs[0]].type.branches == nodes[score].context
        and min(nodes[score].context, default=1) > 0
    }


class Chain(NamedTuple):
    """A projection, and the depthwise convolution that alone reads it, if there is one."""

    projection: int
    convolution: int | None

    @property
    def result(self) -> int:
        return self.projection if self.convolution is None else self.convolution


def merged(nodes: Sequence[Node]) -> list[tuple[Chain, ...]]:
    """Projections of one state to states of equal shape, such as queries, keys and values, which
    are computed as one; and those that a depthwise convolution follows, even alone, as the two
    are computed before branches come apart."""
    readers = Counter(child for node in nodes for child in node.inputs)
    convolved = {
        node.inputs[0]: position
        for position, node in enumerate(nodes)
        if node.op.startswith("DCONV") and readers[node.inputs[0]] == 1
    }
    groups: dict[tuple[object, ...], list[Chain]] = {}
    for position, node in enumerate(nodes):
        if node.op != "CONV 1X1" or nodes[node.inputs[0]].type.branches:
            continue
        after = convolved.get(position)
        if after is not None and nodes[after].context != node.context:
            after = None
        taps = None if after is None else nodes[after].op
        key = (node.inputs, node.value, node.context, taps)
        groups.setdefault(key, []).append(Chain(position, after))
    return [
        tuple(chains)
        for chains in groups.values()
        if len(chains) > 1
        or (chains[0].convolution is not None and nodes[chains[0].projection].context)
    ]
