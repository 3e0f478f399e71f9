"""Which of a block's states a model remembers a context by, read off the block's graph.

Objectives with memories (Zhong et al. 2022) compare contexts by g, the input of the last block's
feed-forward. A program may mark the state, by REMEMBER; of several marks the last one counts, in
the canonical order. For programs without a mark, which have no feed-forward by name, the rule is
about what is computed:

1. The last state of d_model channels that all paths from the block's input to its output pass
   through, and after which weights still mix channels. In a Transformer block that is the residual
   stream after attention; in a block whose attention and feed-forward stand side by side it is the
   block's input.
2. Among the states of d_model channels made from it without mixing channels or positions (its norm,
   or itself), the one that a product with weights reads, or a routed call. Where several do, the
   one after whose product no position looks at others any more, and of several such the last.

A block without any product with weights is remembered by its output.
"""

from __future__ import annotations

from collections.abc import Sequence

from primitives.graph.build import CONCAT, DISPATCH, INPUT, Node
from primitives.lowering.rewrite import ATTENTION
from primitives.ops.state import BLOCK
from primitives.ops.table import PRIMITIVES


def memory_of(nodes: Sequence[Node]) -> int:
    """The position of the remembered state among nodes, inputs first, as `rewrite.lowered` gives
    them. Its type is always [T, d_model]."""
    marked = [place for place, node in enumerate(nodes) if node.op == "REMEMBER"]
    if marked:
        return marked[-1]
    output = len(nodes) - 1
    works = [place for place, node in enumerate(nodes) if _works(node)]
    source = _last_passage(nodes, works)
    if source is None:
        return output
    readers = _first_readers(nodes, works, source)
    if not readers:
        return source
    mixing = _mixes_later(nodes)
    return max(readers, key=lambda pair: (not mixing[pair[0]], pair[1]))[1]


def _works(node: Node) -> bool:
    """Whether a node mixes channels by weights, or hands its input to experts that do."""
    row = PRIMITIVES.get(node.op)
    if row is None or row.weight is None:
        return node.op == DISPATCH
    shape = row.weight.shape
    return shape(2, 3) != shape(2, 5)  # a weight a channel, as of a norm, has one size


def _mixes(node: Node) -> bool:
    """Whether a node's result at a position depends on other positions of its inputs."""
    row = PRIMITIVES.get(node.op)
    if row is None:
        return node.op == ATTENTION
    return row.stepwise is None or row.stepwise.looks_back


def _last_passage(nodes: Sequence[Node], works: Sequence[int]) -> int | None:
    """The last state of the block's type that every path to the output passes through, with a
    product after it; None where there is no product at all."""
    passages = [0] * len(nodes)  # of each node, what all paths to it pass through, as bits
    before = [0] * len(nodes)  # and all that it depends on
    for place, node in enumerate(nodes):
        common = 0 if node.op == INPUT else -1  # what reads nothing lies on no path from the input
        for child in _read_by(node):
            common &= passages[child]
            before[place] |= before[child] | 1 << child
        passages[place] = common | 1 << place
    products = sum(1 << place for place in works)
    for place in range(len(nodes) - 1, -1, -1):
        through = passages[-1] >> place & 1
        after = products & ~before[place] & ~(1 << place)
        if through and nodes[place].type is BLOCK and after:
            return place
    return None


def _first_readers(
    nodes: Sequence[Node], works: Sequence[int], source: int
) -> list[tuple[int, int]]:
    """(reader, state) for each product that reads a state of the block's type made from the source
    alone, without a product and at each position by itself."""
    plain = {source}
    for place in range(source + 1, len(nodes)):
        node = nodes[place]
        alone = bool(node.inputs) and all(child in plain for child in node.inputs)
        if alone and not (_works(node) or _mixes(node) or node.op == CONCAT):
            plain.add(place)
    return [
        (place, child)
        for place in works
        for child in nodes[place].inputs[:1]
        if child in plain and nodes[child].type is BLOCK
    ]


def _read_by(node: Node) -> tuple[int, ...]:
    """The nodes that a node really reads: HASH routes by the token's id, whatever its input is."""
    row = PRIMITIVES.get(node.op)
    return node.inputs if row is None or "in1" in row.reads else ()


def _mixes_later(nodes: Sequence[Node]) -> list[bool]:
    """For each node whether some position's result still depends on its result at others."""
    later = [False] * len(nodes)
    for place in range(len(nodes) - 1, -1, -1):
        node = nodes[place]
        for child in node.inputs:
            later[child] |= later[place] or _mixes(node)
    return later
