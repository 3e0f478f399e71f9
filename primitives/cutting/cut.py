"""The smaller graph: what is left of a block when units are cut, and of its weights.

All sizes of a smaller graph are plain counts, since its widths are no multiples of d_model/8. It is
lowered, exported and counted as any other graph, but it is no program: it cannot be mutated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from primitives.cutting.marking import Changed
from primitives.cutting.units import Cuttable
from primitives.graph.build import COMBINE, CONCAT, DISPATCH, KEEP, Graph, Node
from primitives.lowering.weights import has_weight, weight_specs
from primitives.ops.state import COUNT, ENTRIES, KEYS, StateType

Kept = Sequence[npt.NDArray[np.bool_]]
"""For each group of a block, which of its units stay."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A smaller graph, and how its weights come from those of the whole one.

    Attributes:
        graph: what is left.
        sources: for each of its weights, in order, the number of the whole graph's weight that it
            is a part of, or -1 for a table of places (see `routing.keep_entries`).
        kept: for each of its weights, which units of each dim of its axes stay; of a table, none.
        shapes: their shapes.
        tables: the tables, by the number of the weight.
    """

    graph: Graph
    sources: tuple[int, ...]
    kept: tuple[tuple[npt.NDArray[np.bool_], ...], ...]
    shapes: tuple[tuple[int, ...], ...]
    tables: dict[int, npt.NDArray[np.float32]]

    def weights(self, values: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """The smaller graph's weights, from those of the whole one, which masks have scaled."""
        found = []
        for number, source in enumerate(self.sources):
            if source < 0:
                found.append(self.tables[number])
                continue
            part = values[source].reshape([len(stays) for stays in self.kept[number]])
            for axis, stays in enumerate(self.kept[number]):
                part = np.compress(stays, part, axis=axis)
            found.append(part.reshape(self.shapes[number]))
        return found


def cut(found: Cuttable, kept: Kept) -> Cut:
    """The graph without the units that do not stay, and what becomes of its weights. Of heads,
    hidden units, experts and channels at least one has to stay: what goes as a whole is an addend.

    Raises ValueError where `kept` has another form than the groups."""
    for group, stays in zip(found.groups, kept, strict=True):
        if stays.shape != (group.count,) or (group.dim >= 0 and not stays.any()):
            raise ValueError(
                f"{group.kind} of {group.name}: {group.count} units, of which one has to stay; "
                f"got {stays}"
            )
    made = _Smaller(found, kept)
    return made.cut()


class _Smaller:
    """The nodes that stay, one after the other, with their new sizes."""

    def __init__(self, found: Cuttable, kept: Kept) -> None:
        self.found, self.old, self.layout = found, found.graph.nodes, found.layout
        pairs = list(zip(found.groups, kept, strict=True))
        self.kept = {group.dim: stays for group, stays in pairs if group.dim >= 0}
        self.instead: dict[int, int] = {}
        for group, stays in pairs:
            if group.addend and not stays[0]:
                position, addend = group.addend
                one, other = self.old[position].inputs
                self.instead[position] = other if one == addend else one
        self.nodes: list[Node] = []
        self.new: dict[int, int] = {}
        self.origins: list[int] = []
        self.gates: dict[int, int] = {}
        self.tables: dict[int, npt.NDArray[np.float32]] = {}

    def cut(self) -> Cut:
        last = self.source(len(self.old) - 1)
        needed = self.needed(last)
        for position, node in enumerate(self.old[: last + 1]):
            if needed[position]:
                self.add(position, node)
        numbers = {at: number for number, at in enumerate(sorted(self.layout.weights))}
        weighted = [at for at, node in enumerate(self.nodes) if has_weight(node)]
        graph = Changed(tuple(self.nodes), self.found.graph.every)
        return Cut(
            graph,
            tuple(numbers.get(self.origins[at], -1) for at in weighted),
            tuple(self.stays(self.origins[at]) for at in weighted),
            tuple(spec.shape for spec in weight_specs(graph, self.found.d_model)),
            {number: self.tables[at] for number, at in enumerate(weighted) if at in self.tables},
        )

    def source(self, position: int) -> int:
        """The node that is read in the place of this one: of a sum that has lost an addend, what
        it is added to."""
        while position in self.instead:
            position = self.instead[position]
        return position

    def needed(self, last: int) -> list[bool]:
        needed = [False] * len(self.old)
        needed[0] = needed[last] = True
        for position in range(last, -1, -1):
            if needed[position]:
                node = self.old[position]
                for child in node.inputs:
                    needed[self.source(child)] = True
                if node.support >= 0:
                    needed[node.support] = True
        return needed

    def stays(self, position: int) -> tuple[npt.NDArray[np.bool_], ...]:
        """Which units stay of each dim of a weight's axes."""
        dims = chain(*self.layout.weights.get(position, ()))
        return tuple(self.kept.get(d, np.ones(self.layout.sizes[d], np.bool_)) for d in dims)

    def size(self, dims: Sequence[int]) -> int:
        """Units of an axis that stay."""
        made = 1
        for dim in dims:
            made *= int(self.kept[dim].sum()) if dim in self.kept else self.layout.sizes[dim]
        return made

    def add(self, position: int, node: Node) -> None:
        """The node with its new sizes, behind those that choose among the experts that are left."""
        made = self.type_of(position, node.type)
        inputs = [self.new[self.source(child)] for child in node.inputs]
        context = made.branches[: len(node.context)]
        if node.op in (DISPATCH, COMBINE):
            inputs, context = self.routed(position, inputs), made.branches
            if node.op == COMBINE:
                context = self.nodes[inputs[0]].type.branches
        value = node.value
        if node.op.startswith("CONV") or (node.op == CONCAT and self.layout.features[position]):
            features = self.layout.features[position]
            value = float(self.size(features[:1] if node.op == CONCAT else features))
        support = node.support
        if support >= 0:
            support = len(self.nodes) if support == position else self.new[support]
        changed = node._replace(inputs=tuple(inputs), value=value, context=context, type=made)
        self.new[position] = self.append(changed._replace(support=support), position)

    def append(self, node: Node, origin: int = -1) -> int:
        self.nodes.append(node)
        self.origins.append(origin)
        return len(self.nodes) - 1

    def type_of(self, position: int, old: StateType) -> StateType:
        """A state's type, its sizes as counts."""
        dims = self.layout.branches[position]
        signs = (1 if size > 0 else -1 for size in old.branches)
        branches = tuple(sign * self.size((dim,)) for sign, dim in zip(signs, dims, strict=True))
        if old.axis in (KEYS, ENTRIES):
            return StateType(old.axis, old.size, branches, old.closed, old.domain)
        return StateType(COUNT, self.size(self.layout.features[position]), branches)

    def routed(self, position: int, inputs: list[int]) -> list[int]:
        """The inputs of a DISPATCH or COMBINE, those that say where tokens go without experts that
        are gone."""
        node = self.old[position]
        at = position if node.op == DISPATCH else node.inputs[0]
        stays = self.kept.get(self.layout.branches[at][-1])
        if stays is None or stays.all() or len(inputs) == 1:
            return inputs
        return [inputs[0], self.fewer(inputs[1], stays)]

    def fewer(self, gates: int, stays: npt.NDArray[np.bool_]) -> int:
        """A node that leaves out the gates of experts that are gone."""
        if gates not in self.gates:
            node, left = self.nodes[gates], int(stays.sum())
            if node.type.axis == ENTRIES:
                made = StateType(ENTRIES, node.type.size, node.type.branches, domain=left)
                ids = np.arange(len(stays))
                table = np.where(stays, np.cumsum(stays) - 1, -1 - ids % left)
                support = len(self.nodes)
            else:
                made, support = StateType(COUNT, left, node.type.branches), -1
                table = np.flatnonzero(stays)
            keep = Node(KEEP, (gates,), 0.0, (), made, f"{node.name}_kept", len(table), support)
            self.gates[gates] = self.append(keep)
            self.tables[self.gates[gates]] = table.astype(np.float32)
        return self.gates[gates]
