"""Rewrites of the canonical graph that keep its meaning and gain stability or speed.

The hash and the static cost belong to the graph as it is; only lowering reads the rewritten one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from itertools import chain
from typing import NamedTuple

from primitives.graph.build import Graph, Node
from primitives.lowering.rotary import with_rotated
from primitives.ops.state import CHANNELS, COUNT, KEYS

SOFTMAX = "SOFTMAX"
"""exp(x) over its sum, the largest x subtracted first. Where the state is closed, over the visible
key positions alone."""

RELU = "RELU"
"""The larger of x and 0."""

CENTRED = "CENTRED"
"""x less its mean over the feature axis."""

OVER_RMS = "OVER RMS"
"""x over the root of its mean square, which counts as `value` at least: the core of a layer norm,
whose x is centred, and of an RMS norm."""

ATTENTION = "ATTENTION"
"""Softmax over key positions of the products of queries and keys, times values. `value` is 1 where
it is causal, each position seeing those up to itself, and 0 where every position sees all."""


def lowered(graph: Graph, rotary: bool = False) -> tuple[Node, ...]:
    """The nodes to lower, inputs first: each pattern that has a kernel or a gradient of its own has
    become one node, and nodes that nothing reads any more are left out. Where positions are
    `rotary`, products of two sequences read rotated states (`rotary`)."""
    found = with_rotated(graph.nodes) if rotary else graph.nodes
    nodes = [_replaced(found, node) for node in found]
    needed = _needed(nodes)
    readers = _readers([node for node, kept in zip(nodes, needed, strict=True) if kept])
    return _reachable([_with_attention(nodes, node, readers) for node in nodes])


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


def _read(nodes: Sequence[Node], position: int | None, op: str) -> int | None:
    """What the node at `position` reads first, if there is one and it is an `op`. So a pattern is
    followed from its end: with r = ABS ROOT(f), f = MAX(m), the position of m is
    `_read(nodes, _read(nodes, r, "ABS ROOT"), "MAX")`, and None where r or f is something else."""
    if position is None or nodes[position].op != op:
        return None
    return nodes[position].inputs[0]


def _readers(nodes: Sequence[Node]) -> Counter[int]:
    """How often each node is read."""
    return Counter(chain.from_iterable(node.inputs for node in nodes))


def _softmax_of(nodes: Sequence[Node], node: Node) -> int | None:
    """The node z if `node` is exp(z) / sum(exp(z)), masked before or after exp if over S."""
    if node.op != "DIVIDE":
        return None
    above, below = node.inputs
    if _read(nodes, below, "RED SUM") != above:
        return None
    over_keys = nodes[above].type.axis == KEYS
    unmasked = _read(nodes, above, "MASK") if over_keys else None
    scores = _read(nodes, above if unmasked is None else unmasked, "EXP")
    before = _read(nodes, scores, "MASK")
    return scores if before is None else before


def _over_rms(nodes: Sequence[Node], node: Node) -> float | None:
    """The smallest mean square if `node` is x / sqrt(|max(mean(x x), floor)|), floor above 0. Where
    x is centred, y - mean(y), the mean of x y is that of x x."""
    if node.op != "DIVIDE" or node.type.axis not in (CHANNELS, COUNT):
        return None
    x, root = node.inputs
    floored = _read(nodes, root, "ABS ROOT")
    squared = _read(nodes, _read(nodes, floored, "MAX"), "RED MEAN")
    if floored is None or squared is None or nodes[floored].value <= 0:
        return None
    squares = nodes[squared]
    alone = squares.op == "SQUARE" and squares.inputs == (x,)
    centred = (
        squares.op == "MULTIPLY"
        and _is_centred(nodes, nodes[x])
        and set(squares.inputs) == {x, nodes[x].inputs[0]}
    )
    return nodes[floored].value if alone or centred else None


def _is_centred(nodes: Sequence[Node], node: Node) -> bool:
    """Whether `node` is x - mean(x)."""
    if node.op != "DIFFERENCE" or node.type.axis not in (CHANNELS, COUNT):
        return False
    x, mean = node.inputs
    return _read(nodes, mean, "RED MEAN") == x


def _with_attention(nodes: Sequence[Node], node: Node, readers: Counter[int]) -> Node:
    """ATTENTION of queries, keys and values if `node` computes it and nothing else reads the
    weights; else the node."""
    weights = node.inputs[0] if node.op == "MAT MUL" else None
    scores = _read(nodes, weights, SOFTMAX)
    if weights is None or scores is None or nodes[scores].op != "T-MAT MUL":
        return node
    inputs = (*nodes[scores].inputs, node.inputs[1])
    alone = readers[weights] == readers[scores] == 1
    plain = all(nodes[each].type.axis in (CHANNELS, COUNT) for each in inputs)
    plain &= nodes[inputs[0]].type.branches == node.type.branches  # others may lack heads
    causal = float(nodes[weights].type.closed)
    return node._replace(op=ATTENTION, inputs=inputs, value=causal) if alone and plain else node


def _needed(nodes: Sequence[Node]) -> list[bool]:
    """For each node whether it is the last one, the block's input or one that the last depends
    on."""
    needed = [False] * len(nodes)
    needed[0] = needed[-1] = True
    for index in range(len(nodes) - 1, -1, -1):
        if needed[index]:
            for child in nodes[index].inputs:
                needed[child] = True
            if nodes[index].support >= 0:
                needed[nodes[index].support] = True
    return needed


def _reachable(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The nodes that are needed, numbered anew."""
    number: dict[int, int] = {}
    kept: list[Node] = []
    for index, (node, needed) in enumerate(zip(nodes, _needed(nodes), strict=True)):
        if needed:
            number[index] = len(kept)
            inputs = tuple([number[child] for child in node.inputs])
            support = number.get(node.support, -1)
            if (inputs, support) != (node.inputs, node.support):
                node = node._replace(inputs=inputs, support=support)
            kept.append(node)
    return tuple(kept)


MANY = 128
"""From so many scores on, a gradient through the k chosen ones alone is faster than one through
all."""


def scores_of_top_k(nodes: Sequence[Node]) -> set[int]:
    """Positions of scores over many experts or keys that nothing but a TOP_K reads: the two are
    computed as one."""
    readers = _readers(nodes)
    return {
        score
        for node in nodes
        if node.op == "TOP_K"
        and nodes[score := node.inputs[0]].op == "SCORE"
        and readers[score] == 1
        and nodes[score].count >= MANY
        and nodes[score].context in ((), nodes[nodes[score].inputs[0]].type.branches)
        and min(nodes[score].type.branches, default=1) > 0
    }


class Chain(NamedTuple):
    """A projection, and the depthwise convolution that alone reads it, if there is one."""

    projection: int
    convolution: int | None

    @property
    def result(self) -> int:
        return self.projection if self.convolution is None else self.convolution


def joint_projections(nodes: Sequence[Node], apart: Container[int] = ()) -> list[tuple[Chain, ...]]:
    """Groups of projections that are computed as one product of matrices: those of one state to
    states of equal shape, such as queries, keys and values. A branched projection that a depthwise
    convolution follows is a group even if it is alone, since the two are computed before branches
    come apart. Nodes at positions `apart` are computed by themselves."""
    readers = _readers(nodes)
    convolved = {
        node.inputs[0]: position
        for position, node in enumerate(nodes)
        if node.op.startswith("DCONV") and readers[node.inputs[0]] == 1
    }
    groups: dict[tuple[object, ...], list[Chain]] = {}
    for position, node in enumerate(nodes):
        if node.op != "CONV 1X1" or nodes[node.inputs[0]].type.branches or position in apart:
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
