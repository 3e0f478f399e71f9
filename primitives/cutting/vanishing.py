"""Which weights a mask has to scale so that a masked unit of a state is 0, or a whole state is.

A state that is linear in a weight becomes 0 when that is scaled by 0, and what is 0 stays 0 through
ops that map 0 to 0. With masks of 0 < z < 1 the scaled weights are what training sees.
"""

from __future__ import annotations

from collections.abc import Sequence

from primitives.cutting.layout import Layout
from primitives.graph.build import COMBINE, CONCAT, Node

Scaled = frozenset[int]
"""Positions of nodes whose weights are scaled."""

_LINEAR_IN_WEIGHT = frozenset({
    "CONV 1X1", "CONV 3X1", "CONV 7X1", "CONV 15X1", "CONV 31X1", "SCALE",
    "DCONV 3X1", "DCONV 7X1", "DCONV 15X1", "DCONV 31X1",
})  # fmt: skip
_ZERO_STAYS = frozenset({
    "ABS ROOT", "SQUARE", "C MUL", "ABS", "SIGN", "SIN", "TANH", "MASK", "CUM PROD", "CUM SUM",
    "STOP_GRAD", "STEP", "REMEMBER", "RED SUM", "RED MEAN", CONCAT, COMBINE,
})  # fmt: skip
"""Ops whose result is 0 where their first input is."""


def vanishing_units(nodes: Sequence[Node], layout: Layout, dim: int) -> list[Scaled | None]:
    """For each node, whose weights make one unit of `dim` 0 in its state if they are scaled by 0 at
    that unit; None where no weights do, or where the state has no such dim."""
    found: list[Scaled | None] = []
    for position, node in enumerate(nodes):
        has = dim in layout.features[position] or dim in layout.branches[position]
        weighs = position in layout.weights and dim in made_dims(node, position, layout)
        alone = has and (node.op != "DIVIDE" or found[node.inputs[1]] is None)
        found.append(_scaled(node, position, found, weighs) if alone else None)
    return found


def vanishing_states(nodes: Sequence[Node], readers: Sequence[int]) -> list[Scaled | None]:
    """For each node, whose weights make its whole state 0 if they are scaled by 0, and change no
    state but those that nothing else reads; None where no weights do."""
    found: list[Scaled | None] = []
    for position, node in enumerate(nodes):
        made = _scaled(node, position, found, position > 0)
        found.append(made if readers[position] == 1 else None)
    return found


def made_dims(node: Node, position: int, layout: Layout) -> tuple[int, ...]:
    """The dims of a node's weight that its state has as well: all but those of its rows."""
    axes = layout.weights[position]
    if node.op.startswith("CONV"):
        axes = (*axes[: len(node.context)], axes[-1])
    return tuple(dim for axis in axes for dim in axis)


def _scaled(
    node: Node, position: int, found: Sequence[Scaled | None], weighs: bool
) -> Scaled | None:
    """The weights that make a node's state 0, from those of the nodes that it reads; `weighs` says
    whether its own weight has the dim that is asked for."""
    read = [found[child] for child in node.inputs]
    if node.op in _LINEAR_IN_WEIGHT:
        return frozenset({position}) if weighs else read[0]
    if node.op == "SHIFT":
        return None if read[0] is None else read[0] | {position}
    if node.op == "DIFFERENCE" and node.inputs[0] == node.inputs[1]:
        return frozenset()
    if node.op in ("ADD", "DIFFERENCE"):
        one, other = read
        return None if one is None or other is None else one | other
    if node.op in ("MULTIPLY", "MAT MUL", "T-MAT MUL"):
        return next((each for each in reversed(read) if each is not None), None)
    if node.op in ("MAX", "MIN"):
        stays = node.value <= 0 if node.op == "MAX" else node.value >= 0
        return read[0] if stays else None
    return read[0] if node.op in _ZERO_STAYS or node.op == "DIVIDE" else None
