"""Rewrites of the canonical graph that keep its meaning and gain stability or speed.

The hash and the static cost belong to the graph as it is; only lowering reads the rewritten one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from primitives.graph.build import Graph, Node
from primitives.ops.types import CHANNELS, COUNT, KEYS

SOFTMAX = "SOFTMAX"
"""exp(x) over its sum, the largest x subtracted first; over visible entries if the result is
a closed state over S."""


RELU = "RELU"
"""The larger of x and 0."""

CENTRED = "CENTRED"
"""x less its mean over the feature axis."""

OVER_RMS = "OVER RMS"
"""x over the root of its mean square, which counts as `value` at least: the core of a layer norm,
whose x is centred, and of an RMS norm."""

ATTENTION = "ATTENTION"
"""Softmax over visible key positions of the products of queries and keys, times values."""


def lowered(graph: Graph) -> tuple[Node, ...]:
    """The nodes to lower, inputs first: what has a kernel or a gradient of its own in one node,
    unreachable nodes left out."""
    nodes = _reachable([_replaced(graph.nodes, node) for node in graph.nodes])
    readers = _readers(nodes)
    made = list(nodes)
    for index, node in enumerate(nodes):
        read = _attended(nodes, node, readers)
        if read is not None:
            made[index] = node._replace(op=ATTENTION, inputs=read)
    return _reachable(made)


def _replaced(nodes: Sequence[Node], node: Node) -> Node:
    """The node, or one that computes the same from inputs further back."""
    if (scores := _softmax_of(nodes, node)) is not None:
        return node._replace(op=SOFTMAX, inputs=(scores,))
    if (floor := _over_rms(nodes, node)) is not None:
        return node._replace(op=OVER_RMS, inputs=node.inputs[:1], value=floor)
    if _is_centred(nodes, node):
        return node._replace(op=CENTRED, inputs=node.inputs[:1])
    if node.op == "MAX" and node.value == 0:
        return node._replace(op=RELU)
    return node


def _readers(nodes: Sequence[Node]) -> Counter[int]:
    """How often each node is read."""
    return Counter(child for node in nodes for child in node.inputs)


def _softmax_of(nodes: Sequence[Node], node: Node) -> int | None:
    """The node z if `node` is exp(z) / sum(exp(z)), masked before or after exp if over S."""
    if node.op != "DIVIDE":
        return None
    above, below = node.inputs
    if nodes[below].op != "RED SUM" or nodes[below].inputs != (above,):
        return None
    exponential = nodes[above]
    if exponential.type.axis == KEYS and exponential.op == "MASK":
        exponential = nodes[exponential.inputs[0]]
    if exponential.op != "EXP":
        return None
    scores = exponential.inputs[0]
    return nodes[scores].inputs[0] if nodes[scores].op == "MASK" else scores


def _over_rms(nodes: Sequence[Node], node: Node) -> float | None:
    """The smallest mean square if `node` is x / sqrt(|max(mean(x x), floor)|), floor above 0. Where
    x is centred, y - mean(y), the mean of x y is that of x x."""
    if node.op != "DIVIDE" or node.type.axis not in (CHANNELS, COUNT):
        return None
    x, root = node.inputs
    floored = nodes[nodes[root].inputs[0]] if nodes[root].op == "ABS ROOT" else node
    mean = nodes[floored.inputs[0]]
    if floored.op != "MAX" or floored.value <= 0 or mean.op != "RED MEAN":
        return None
    squares = nodes[mean.inputs[0]]
    alone = squares.op == "SQUARE" and squares.inputs == (x,)
    centred = (
        squares.op == "MULTIPLY"
        and _is_centred(nodes, nodes[x])
        and set(squares.inputs) == {x, nodes[x].inputs[0]}
    )
    return floored.value if alone or centred else None


def _is_centred(nodes: Sequence[Node], node: Node) -> bool:
    if node.op != "DIFFERENCE" or node.type.axis not in (CHANNELS, COUNT):
        return False
    x, mean = node.inputs
    return nodes[mean].op == "RED MEAN" and nodes[mean].inputs == (x,)


def _attended(
    nodes: Sequence[Node], node: Node, readers: Counter[int]
) -> tuple[int, int, int] | None:
    """Queries, keys and values if `node` is their attention, and nothing else reads the weights."""
    if node.op != "MAT MUL" or nodes[node.inputs[0]].op != SOFTMAX:
        return None
    weights, values = node.inputs
    scores = nodes[weights].inputs[0]
    if nodes[scores].op != "T-MAT MUL" or readers[weights] > 1 or readers[scores] > 1:
        return None
    if not nodes[weights].type.closed:  # the kernel is that of causal attention
        return None
    queries, keys = nodes[scores].inputs
    read = (queries, keys, values)
    plain = all(
        nodes[each].type.axis in (CHANNELS, COUNT)
        and nodes[each].type.branches == node.type.branches
        for each in read
    )
    return read if plain else None


def _reachable(nodes: Sequence[Node]) -> tuple[Node, ...]:
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
    readers = _readers(nodes)
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
    readers = _readers(nodes)
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
