"""The graph of a masked block. A masked unit is not there: what sums, averages or compares all
units of an axis has to leave it out, as the smaller block does. Where no scaled weight sees to
that, the masked block's graph has a SCALE or SHIFT before, with a weight that follows from the
masks. So the mean over the kept units is a mean over all units, the kept ones times all over kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from primitives.graph.build import Graph, Node
from primitives.lowering.weights import has_weight

Told = Mapping[int, Mapping[int, int]]
"""For each node that has to be told which units its first input has, the groups of their masks by
dims."""


class Changed(Graph):
    """A graph that was made from another one's nodes. `hash` is of its own nodes, and `every` that
    of the program."""

    __slots__ = ()

    def __init__(self, nodes: tuple[Node, ...], every: int) -> None:
        self._nodes, self.every = nodes, every
        self.hash = hashlib.blake2b(repr(nodes).encode(), digest_size=16).hexdigest()

    @property
    def ops(self) -> set[str]:
        return {node.op for node in self.nodes}


FAR = 1e30
"""What is so far away is never the largest or smallest."""


def _there(stays: Any, xp: Any) -> Any:
    return stays


def _share(stays: Any, xp: Any) -> Any:
    return stays * (stays.shape[0] / xp.sum(stays))


def _gone(stays: Any, xp: Any) -> Any:
    return 1 - stays


def _lowest(stays: Any, xp: Any) -> Any:
    return (stays - 1) * FAR


def _highest(stays: Any, xp: Any) -> Any:
    return (1 - stays) * FAR


Telling = tuple[str, Callable[[Any, Any], Any]]
"""An op with a weight, and the weight's value from what stays."""

TELLING: dict[str, tuple[Telling, ...]] = {
    "T-MAT MUL": (("SCALE", _there),),
    "RED SUM": (("SCALE", _there),),
    "RED MEAN": (("SCALE", _share),),
    "RED PROD": (("SCALE", _there), ("SHIFT", _gone)),
    "RED MAX": (("SHIFT", _lowest),),
    "RED MIN": (("SHIFT", _highest),),
}
"""What comes before an op that is told which units are there."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A weight that says which units of an axis are there.

    Attributes:
        groups: for each dim of the axis the group that masks it; -1 where it stays whole.
        sizes: units of each dim.
        branches: how many branches have a copy each.
        value_of: the weight's value, of 1 for each unit that stays and 0 for others.
    """

    groups: tuple[int, ...]
    sizes: tuple[int, ...]
    branches: tuple[int, ...]
    value_of: Callable[[Any, Any], Any]

    def value(self, masks: Sequence[Any], xp: Any) -> Any:
        """The weight, from the mask of each group."""
        made: Any = np.ones(1, np.float32)
        for group, size in zip(self.groups, self.sizes, strict=True):
            own = np.ones(size, np.float32) if group < 0 else staying(masks[group], xp)
            made = xp.reshape(xp.reshape(made, (-1, 1)) * xp.reshape(own, (1, -1)), (-1,))
        value = self.value_of(made, xp)
        return np.ones((*self.branches, 1), np.float32) * value if self.branches else value


def staying(mask: Any, xp: Any) -> Any:
    """1 for each unit that a mask leaves anything of, else 0. Where it leaves no unit, all stay:
    there is no mean of nothing. `xp` is NumPy or keras.ops."""
    stays = xp.sign(mask)
    return 1 - (1 - stays) * xp.max(stays)


@dataclass(frozen=True, slots=True)
class Marked:
    """The graph of a masked block, and for each of its weights, in order, the number of the whole
    block's weight that it is, or the mark that it is made from."""

    graph: Graph
    sources: tuple[int | Mark, ...]


def marked(
    graph: Graph, told: Told, axes: Sequence[tuple[int, ...]], sizes: Mapping[int, int]
) -> Marked:
    """The graph in which nodes are told of masks; `axes` are the dims of each node's feature
    axis, and `sizes` those of the dims."""
    nodes: list[Node] = []
    sources: list[int | Mark] = []
    moved: dict[int, int] = {}
    known: dict[tuple[int, Telling], int] = {}
    whole = 0
    for position, node in enumerate(graph.nodes):
        first = node.inputs[0] if node.inputs else -1
        instead = moved.get(first, -1)
        for telling in TELLING[node.op] if position in told else ():
            if (instead, telling) not in known:
                known[instead, telling] = len(nodes)
                read, groups = graph.nodes[first], told[position]
                # Of branches that are experts each has weights of its own.
                own = read.type.branches if min(read.type.branches, default=1) < 0 else ()
                nodes.append(
                    Node(telling[0], (instead,), 0.0, own, read.type, f"{read.name}_marked")
                )
                at = tuple(groups.get(dim, -1) for dim in axes[first])
                units, copies = tuple(sizes[dim] for dim in axes[first]), tuple(map(abs, own))
                sources.append(Mark(at, units, copies, telling[1]))
            instead = known[instead, telling]
        inputs = tuple(moved[child] for child in node.inputs)
        moved[position] = len(nodes)
        support = node.support if node.support < 0 else moved[node.support]
        if position in told:
            inputs = (instead, *inputs[1:])
        nodes.append(node._replace(inputs=inputs, support=support))
        if has_weight(node):
            sources.append(whole)
            whole += 1
    made = Changed(tuple(nodes), graph.every) if told else graph
    return Marked(made, tuple(sources))
