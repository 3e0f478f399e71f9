"""Tokens that pass a block by: what is computed for nothing where a gate is 0.

A call of a single expert whose gate is mostly 0 needs the tokens alone that the gate leaves open,
and so does all else that is read for nothing but to be multiplied by that gate: in a mixture of
depths queries, rows of attention, and the feed-forward. Those nodes are computed on packed rows
(`kernels.rows`). Keys and values are not: other tokens look at them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from primitives.graph.build import COMBINE, CONCAT, DISPATCH, Node
from primitives.lowering.rewrite import ATTENTION, CENTRED, OVER_RMS, RELU, SOFTMAX
from primitives.ops.state import CHANNELS, COUNT, KEYS
from primitives.ops.table import PRIMITIVES


class Passing(NamedTuple):
    """What one gate closes.

    Attributes:
        gate: the position of the gate's node.
        nodes: those that are computed on packed rows.
        edges: those that multiply such nodes by the gate: their results have all rows again.
    """

    gate: int
    nodes: frozenset[int]
    edges: frozenset[int]


_BY_ROW = frozenset({CONCAT, CENTRED, OVER_RMS, RELU, SOFTMAX, DISPATCH})
_FIRST_ALONE = frozenset({ATTENTION, "T-MAT MUL", "MAT MUL"})
"""Of input 1 each row is needed for its own result alone; of the others every row for all."""


def passing(
    nodes: Sequence[Node],
    around: Sequence[int],
    dispatch: int,
    gate: int,
    rewritten: bool,
    rotary: bool = False,
) -> Passing | None:
    """What the gate of a routed call's single expert closes; None where that is nothing beside the
    call itself, or where the call cannot be computed on packed rows. `rewritten` nodes are those
    that are lowered, where attention is a single one. `rotary` products of two sequences rotate
    rows by where they stand, and are not packed."""
    if nodes[gate].type.branches or nodes[dispatch].context != (-1,):
        return None
    readers: list[list[int]] = [[] for _ in nodes]
    for position, node in enumerate(nodes):
        for child in node.inputs:
            readers[child].append(position)
    closes = {
        position
        for position, node in enumerate(nodes)
        if (node.op == COMBINE and around[node.inputs[0]] == dispatch)
        or (node.op == "MULTIPLY" and gate in node.inputs and not node.type.branches)
    }
    own = {position for position, region in enumerate(around) if region == dispatch}
    refused = {
        position
        for position, node in enumerate(nodes)
        if not _by_row(node, rewritten)
        or around[position] not in (-1, dispatch)
        or (rotary and node.op == "T-MAT MUL")
    }
    while True:
        found = _closed(nodes, readers, gate, closes, refused)
        if not own <= found:
            return None
        refused_now = {each for each in found if not _can_be_packed(nodes, each, found)}
        if not refused_now:
            break
        refused |= refused_now
    if not any(_worth_it(nodes[each]) for each in found - own):
        return None
    edges = {each for each in closes if found.intersection(nodes[each].inputs)}
    return Passing(gate, frozenset(found), frozenset(edges))


def _closed(
    nodes: Sequence[Node],
    readers: Sequence[Sequence[int]],
    gate: int,
    closes: set[int],
    refused: set[int],
) -> set[int]:
    """Nodes that are read for their rows where the gate is open alone, from the last one back."""
    found: set[int] = set()
    for position in range(len(nodes) - 2, 0, -1):
        if position in refused or position == gate:
            continue
        if readers[position] and all(
            (reader in closes and nodes[reader].inputs.count(position) == 1)
            or (reader in found and _row_alone(nodes[reader], position))
            for reader in readers[position]
        ):
            found.add(position)
    return found


def _by_row(node: Node, rewritten: bool) -> bool:
    """Whether each row of a node's value follows from the same rows of its inputs, but for those of
    which attention reads all rows."""
    if node.type.axis not in (CHANNELS, COUNT):
        return node.type.axis == KEYS and node.op in _OVER_KEYS and not rewritten
    if node.op in _BY_ROW or node.op == ATTENTION:
        return True
    if node.op in _FIRST_ALONE:
        return not rewritten
    row = PRIMITIVES.get(node.op)
    if row is None or row.stepwise is None or row.stepwise.looks_back or row.stepwise.code:
        return False  # it looks at other rows, or at where a row stands
    return not (row.training or row.random or "run" in row.code)


_OVER_KEYS = frozenset({"T-MAT MUL", "MASK", "EXP", "DIVIDE", "C MUL"})
"""What attention is made of before it is rewritten as one node. What is not keeps all rows."""


def _row_alone(reader: Node, position: int) -> bool:
    return reader.op not in _FIRST_ALONE or (
        reader.inputs[0] == position and reader.inputs.count(position) == 1
    )


def _can_be_packed(nodes: Sequence[Node], position: int, found: set[int]) -> bool:
    """Whether the inputs that a node reads by row are packed, or can be: states without heads."""
    node = nodes[position]
    read = node.inputs[:1] if node.op in _FIRST_ALONE else node.inputs
    return all(
        child in found
        or (nodes[child].type.axis in (CHANNELS, COUNT) and not nodes[child].type.branches)
        for child in read
    )


def _worth_it(node: Node) -> bool:
    row = PRIMITIVES.get(node.op)
    return node.op in _FIRST_ALONE or (row is not None and row.weight is not None)
