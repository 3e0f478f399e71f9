"""The dims of every state and weight of a graph, and where each dim comes to an end.

Sizes are those at one width. A dim ends where a weight's rows sum over it, where T-MAT MUL
contracts it, where a reduction reads it, and where a routed call's results are summed over experts.
All other ops that look at several units of a dim at once keep it whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from primitives.cutting.dims import Axis, Dims
from primitives.graph.build import COMBINE, CONCAT, DISPATCH, INPUT, Graph, Node
from primitives.lowering.dispatch import feature_size, weight_shape
from primitives.lowering.rotary import rotated_states
from primitives.lowering.weights import has_weight
from primitives.ops.state import CHANNELS, COUNT, ENTRIES, KEYS

DIVIDED = "they are divided, as heads side by side are, and all layers share them"


class End(NamedTuple):
    """Where dims are summed over.

    Attributes:
        node: the position of the node that sums.
        dims: the dims that end there.
        kind: "rows" of the node's weight; "zeros": terms that must be 0 where a unit is masked; or
            "units": those that a mean, product, maximum or minimum is of.
        read: the input of the node whose terms these are, and another one for a product.
    """

    node: int
    dims: Axis
    kind: Literal["rows", "zeros", "units"]
    read: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """A graph's dims.

    Attributes:
        sizes: units of each dim.
        features: the dims of each node's feature axis; () where it has size 1, lies over key
            positions or holds a sparse state's entries.
        branches: the dims of each node's branch axes.
        weights: for each node with a weight the dims of the weight's axes, in its shape's order.
        ends: where dims are summed over.
        kept: why dims are kept whole.
    """

    sizes: dict[int, int]
    features: tuple[Axis, ...]
    branches: tuple[Axis, ...]
    weights: dict[int, tuple[Axis, ...]]
    ends: tuple[End, ...]
    kept: dict[int, str]

    @property
    def channels(self) -> int:
        """The dim of the block's own channels, which all layers share; -1 where these are a product
        of dims."""
        return self.features[0][0] if len(self.features[0]) == 1 else -1

    def size(self, axis: Axis) -> int:
        """Scalars on an axis."""
        made = 1
        for dim in axis:
            made *= self.sizes[dim]
        return made


def layout(graph: Graph, d_model: int, rotary: bool = False) -> Layout:
    """The dims of a graph at this width. `rotary` positions turn channels in pairs whose place says
    by how much, so that those stay."""
    found = _Finder(graph.nodes, d_model)
    for position, node in enumerate(graph.nodes):
        found.add(position, node)
    dims = found.dims
    for position in rotated_states(graph.nodes) if rotary else ():
        dims.keep(found.features[position], "rotary positions turn it in pairs")
    dims.join(found.features[-1], found.features[0])
    leaves = dims.leaves
    if len(leaves(found.features[0])) > 1:
        dims.keep(found.features[0], DIVIDED)
    features = tuple(leaves(axis) for axis in found.features)
    branches = tuple(leaves(axis) for axis in found.branches)
    weights = {at: tuple(leaves(axis) for axis in axes) for at, axes in found.weights.items()}
    ends = tuple(end._replace(dims=leaves(end.dims)) for end in found.ends)
    every = {dim for axis in (*features, *branches) for dim in axis}
    every |= {dim for axes in weights.values() for axis in axes for dim in axis}
    sizes = {dim: dims.size((dim,)) for dim in sorted(every)}
    return Layout(sizes, features, branches, weights, ends, dims.kept)


_ELEMENTWISE = frozenset({
    "ABS ROOT", "SQUARE", "EXP", "LOG", "C MUL", "ABS", "RECIP", "SIGN", "COS", "SIN", "TANH",
    "SIGMOID", "MAX", "MIN", "MASK", "CUM PROD", "CUM SUM", "STOP_GRAD", "STEP", "NOISE", "UNIFORM",
    "REMEMBER", "CONSISTENCY",
})  # fmt: skip
"""Ops that treat every unit of a feature axis by itself."""
_ONLY_PASSED = frozenset({"HASH", "TASK", "PLACE", "STEPS", "REINFORCE", "BASELINE"})
"""Ops that compute nothing from their first input: they ask which positions it has, or give it."""
_JOINING = frozenset({"ADD", "DIFFERENCE", "DIVIDE", "MULTIPLY"})
_PER_CHANNEL = frozenset({"SCALE", "SHIFT", "DCONV 3X1", "DCONV 7X1", "DCONV 15X1", "DCONV 31X1"})
_MAPS = frozenset({
    "CONV 1X1", "CONV 3X1", "CONV 7X1", "CONV 15X1", "CONV 31X1", "SCORE", "FROZEN",
})  # fmt: skip
_REDUCTIONS: dict[str, Literal["zeros", "units"]] = {
    "RED SUM": "zeros", "RED MEAN": "units", "RED MAX": "units", "RED MIN": "units",
    "RED PROD": "units",
}  # fmt: skip


class _Finder:
    """Dims of one node after the other."""

    def __init__(self, nodes: Sequence[Node], d_model: int) -> None:
        self.nodes, self.d_model, self.dims = nodes, d_model, Dims()
        self.features: list[Axis] = []
        self.branches: list[Axis] = []
        self.weights: dict[int, tuple[Axis, ...]] = {}
        self.ends: list[End] = []

    def add(self, position: int, node: Node) -> None:
        self.branches.append(self.branches_of(node))
        if node.op == INPUT:
            made = self.dims.new(self.d_model)
        elif node.op in _ELEMENTWISE:
            made = self.features[node.inputs[0]]
        elif node.op in _JOINING:
            made = self.joined(node)
        elif node.op in _PER_CHANNEL or node.op in _MAPS:
            made = self.weighted(position, node)
        elif node.op in ("T-MAT MUL", "MAT MUL"):
            made = self.product(position, node)
        elif node.op in (CONCAT, DISPATCH, COMBINE):
            made = self.moved(position, node)
        elif node.op in _REDUCTIONS:
            if axis := self.features[node.inputs[0]]:
                self.ends.append(End(position, axis, _REDUCTIONS[node.op], node.inputs))
            made = ()
        else:
            made = self.other(position, node)
        self.features.append(made)

    def branches_of(self, node: Node) -> Axis:
        """Dims of the branch axes: those of the inputs, and new ones for axes that begin here."""
        sizes, found = node.type.branches, list[int]()
        read = [self.branches[child] for child in node.inputs]
        if node.op == COMBINE:
            read[0] = read[0][: len(sizes)]
        for depth, size in enumerate(sizes):
            same = [axes[depth] for axes in read if len(axes) > depth]
            for other in same[1:]:
                self.dims.join((same[0],), (other,))
            found.append(same[0] if same else self.dims.branch(abs(size)))
        return tuple(found)

    def branches_of_weight(self, position: int, node: Node) -> tuple[Axis, ...]:
        """The axes for branches of a node's weight: fewer than its state has where these share
        it."""
        return tuple((dim,) for dim in self.branches[position][: len(node.context)])

    def joined(self, node: Node) -> Axis:
        """Equal feature axes, or one that spreads over the other."""
        one, other = (self.features[child] for child in node.inputs)
        if one and other:
            self.dims.join(one, other)
        return one or other

    def weighted(self, position: int, node: Node) -> Axis:
        """A weight's axes: its branches, taps where it has them, channels read, channels made."""
        read, made = self.features[node.inputs[0]], node.type
        shape = weight_shape(node.op, self.nodes[node.inputs[0]].type, made, self.d_model)
        after = read
        axes: tuple[Axis, ...] = (read,)
        if node.op in _MAPS:
            after = self.dims.new(feature_size(made, self.d_model, 0))
            axes = (read, after)
            if read:
                self.ends.append(End(position, read, "rows", node.inputs))
            if node.op in ("SCORE", "FROZEN"):
                self.dims.keep(after, f"{node.op} ({node.name}) makes scores of it")
        taps = self.dims.new(shape[0]) if len(shape) > len(axes) else ()
        if len(shape) > len(axes):
            self.dims.keep(taps, "taps of a convolution")
            axes = (taps, *axes)
        self.weights[position] = (*self.branches_of_weight(position, node), *axes)
        return after

    def product(self, position: int, node: Node) -> Axis:
        one, other = (self.features[child] for child in node.inputs)
        if node.op == "MAT MUL":
            return other
        if one and other:
            self.dims.join(one, other)
            self.ends.append(End(position, one, "zeros", node.inputs))
        return ()

    def moved(self, position: int, node: Node) -> Axis:
        """Branches side by side, tokens to experts, and their results back."""
        read = self.features[node.inputs[0]]
        if node.op == DISPATCH:
            return read
        branches = self.branches[node.inputs[0]]
        if node.op == COMBINE:
            self.ends.append(End(position, branches[-1:], "zeros", node.inputs[:1]))
            gates = self.features[node.inputs[1]]
            self.dims.keep(gates, f"they are gates for experts ({node.name})")
            return read
        depth = len(node.type.branches)
        side = branches[depth] if len(branches) > depth else self.dims.branch(int(node.value))
        if node.type.axis == ENTRIES:
            self.dims.keep((side,), f"its sparse states stand side by side ({node.name})")
            return ()
        return (side, *read)

    def other(self, position: int, node: Node) -> Axis:
        """An op that may look at all units of its inputs' features at once."""
        read = node.inputs[node.op in _ONLY_PASSED :]
        for child in read:
            self.dims.keep(self.features[child], f"{node.op} ({node.name}) reads all of it at once")
        row_reads = self.nodes[node.inputs[0]]
        if has_weight(node):
            shape = weight_shape(node.op, row_reads.type, node.type, self.d_model)
            own = tuple(self.dims.new(size) for size in shape)
            for axis in own:
                self.dims.keep(axis, f"{node.op} ({node.name}) has a state for it")
            self.weights[position] = (*self.branches_of_weight(position, node), *own)
        if node.type.axis in (KEYS, ENTRIES):
            return ()
        same = self.features[node.inputs[0]] if read else ()
        size = feature_size(node.type, self.d_model, 0)
        if node.type.axis in (CHANNELS, COUNT) and self.dims.size(same) == size:
            return same
        made = self.dims.new(size)
        self.dims.keep(made, f"{node.op} ({node.name}) makes all of it at once")
        return made
