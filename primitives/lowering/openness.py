"""Which gates are mostly zero: read off the operations that make them, before anything runs.

Gates over all experts choose, like the indices of a top-k, where their operations close them: a
rectifier, a threshold, a step. An expert need not see a token whose gate is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from primitives.graph.build import CONCAT, Node
from primitives.lowering.rewrite import RELU


class Openness(NamedTuple):
    """What is known of a state's zeros.

    Attributes:
        share: the share of its values that are expected not to be 0; 1 where none need be.
        settled: whether no gradient passes where a value is 0, so that what a gate would have
            weighed need not be known there. A step that borrows the slope of a sigmoid is not.
        bound: whether a sequence never has more than that share open for one expert.
    """

    share: float
    settled: bool = True
    bound: bool = False


_DENSE = Openness(1.0)

_HALF = Openness(0.5)
"""Of a rectifier or a step: the scores of a random router are as often below 0 as above."""

_KEEPS_ZEROS = frozenset({
    "C MUL", "ABS", "SQUARE", "SIGN", "SCALE", "STOP_GRAD", "DIVIDE", CONCAT,
    "IMPORTANCE_LOSS", "LOAD_LOSS", "Z_LOSS", "REINFORCE", "BASELINE", "CONSISTENCY",
})  # fmt: skip
"""Operations whose result is 0 where input 1 is, and whose gradient there is that of input 1 at
most."""


def openness(nodes: Sequence[Node], length: int) -> list[Openness]:
    """What is known of the zeros of each node's value, in sequences of this length."""
    known: list[Openness] = []
    for node in nodes:
        if node.op == "PLACE":  # one position for each of the first
            known.append(Openness(1 / length, bound=True))
        else:
            known.append(_openness(nodes, node, known))
    return known


def _openness(nodes: Sequence[Node], node: Node, known: Sequence[Openness]) -> Openness:
    read = [known[child] for child in node.inputs]
    if node.op in ("THRESHOLD", "TOP_T"):
        return Openness(min(1.0, max(0.0, node.value)), bound=node.op == "TOP_T")
    if node.op in (RELU, "STEP") or (node.op == "MAX" and node.value == 0):
        return _HALF
    if node.op in _KEEPS_ZEROS:
        return read[0]
    if node.op in ("SPARSITY_LOSS", "JOINT_SPARSITY_LOSS"):  # they steer the share
        steered = node.count / node.type.size
        return read[0]._replace(share=steered) if read[0].share < 1 else _DENSE
    if node.op == "MULTIPLY":
        return _product(*read)
    if node.op in ("ADD", "DIFFERENCE"):
        return _sum(nodes, node, read)
    return _DENSE


def _product(x: Openness, y: Openness) -> Openness:
    """A product is 0 where either factor is, and one that closes must not want the other's
    value."""
    less = min(x, y, key=lambda each: each.share)
    return less._replace(settled=all(each.settled for each in (x, y) if each.share < 1))


def _sum(nodes: Sequence[Node], node: Node, read: Sequence[Openness]) -> Openness:
    """x plus what is always 0 but has a gradient: y less y without its gradient."""
    for place, child in enumerate(node.inputs):
        if _slope_alone(nodes, child) and (place == 1 or node.op == "ADD"):
            return read[1 - place]._replace(settled=False)
    return _DENSE


def _slope_alone(nodes: Sequence[Node], position: int) -> bool:
    """Whether a node is y - STOP_GRAD(y)."""
    node = nodes[position]
    if node.op != "DIFFERENCE":
        return False
    y, fixed = node.inputs
    return nodes[fixed].op == "STOP_GRAD" and nodes[fixed].inputs[0] == y
