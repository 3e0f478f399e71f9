"""What can be cut out of a block, and why the rest cannot.

A group is a mask's worth of units: the heads of a branched call, the hidden units between two
products, the experts of a routed call, the block's own channels, or one addend, such as attention
in a residual block. Masked means that the weights which the group names are scaled by 0, and that
the nodes which it names are told of it; cut means that those units are gone. Both give the same
block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple

from primitives.cutting.layout import End, Layout, layout
from primitives.cutting.marking import Marked, marked
from primitives.cutting.vanishing import Scaled, made_dims, vanishing_states, vanishing_units
from primitives.graph.build import COMBINE, CONCAT, DISPATCH, Graph, Node
from primitives.ops.state import ENTRIES, KEYS

Kind = Literal["heads", "hidden", "experts", "addend", "channels"]


class Place(NamedTuple):
    """What a mask scales: the weight of the node at this position, along one of its dims, counted
    over all its axes; `axis` is -1 for the whole weight."""

    node: int
    axis: int


@dataclass(frozen=True, slots=True)
class Group:
    """Units that can be cut one by one.

    Attributes:
        kind: what they are.
        name: where the program says it, SUBROUTINE.STATE.
        count: how many there are.
        places: what is scaled by their mask.
        dim: the dim of the layout; -1 for an addend.
        addend: the position of the ADD and of its addend; () otherwise.
        told: nodes that have to be told which units are there (see `marking`).
    """

    kind: Kind
    name: str
    count: int
    places: tuple[Place, ...]
    dim: int = -1
    addend: tuple[int, ...] = ()
    told: tuple[int, ...] = ()


class Whole(NamedTuple):
    """What cannot be cut: `kind` and `name` as in a group, and why."""

    kind: Kind
    name: str
    count: int  # type: ignore[assignment]  # nobody counts its fields
    reason: str


@dataclass(frozen=True, slots=True)
class Cuttable:
    """All that can be cut out of a block at one width, and what cannot.

    Attributes:
        graph: the block's.
        d_model: the width.
        layout: its dims.
        groups: what can be cut; the last one is that of the block's own channels if they can.
        whole: what cannot, with the reason.
        live: for each node the sets of addends, by their group, of which one has to be there whole
            for the node to be read: {()} for one that is always read.
        marked: the graph that runs masked.
    """

    graph: Graph
    d_model: int
    layout: Layout
    groups: tuple[Group, ...]
    whole: tuple[Whole, ...]
    live: tuple[frozenset[frozenset[int]], ...]
    marked: Marked

    @property
    def channels(self) -> Group | None:
        """The group of the block's own channels, which is that of all layers."""
        last = self.groups[-1] if self.groups else None
        return last if last is not None and last.kind == "channels" else None


MOST_WAYS = 6
"""Sets of addends that may keep a node read; more make their expected cost slow to compute."""


def cuttable(
    graph: Graph, d_model: int, rotary: bool = False, whole_channels: str = ""
) -> Cuttable:
    """What can be cut out of the graph's block at this width; see `layout` for `rotary`. Where
    `whole_channels` is a reason, the block's own channels stay."""
    found = layout(graph, d_model, rotary)
    nodes = graph.nodes
    groups, channels, whole = list[Group](), list[Group](), list[Whole]()
    ends: dict[int, list[End]] = {}
    for end in found.ends:
        for dim in end.dims:
            ends.setdefault(dim, []).append(end)
    for dim, size in found.sizes.items():
        kind, name = _described(nodes, found, dim)
        made = _dim_group(nodes, found, dim, ends.get(dim, ()))
        if kind == "channels" and whole_channels:
            made = whole_channels
        if not isinstance(made, str):
            to = channels if kind == "channels" else groups
            to.append(Group(kind, name, size, made.places, dim, told=made.told))
        elif size > 1 and name:
            whole.append(Whole(kind, name, size, made))
    addends = _addends(nodes)
    live = _live(nodes, [*groups, *addends])
    while max(map(len, live)) > MOST_WAYS:
        last = addends.pop()
        whole.append(Whole("addend", last.name, 1, "too many ways lead around it"))
        live = _live(nodes, [*groups, *addends])
    every = (*groups, *addends, *channels)
    return Cuttable(graph, d_model, found, every, tuple(whole), live, _marked(graph, found, every))


def _marked(graph: Graph, found: Layout, groups: Sequence[Group]) -> Marked:
    """The graph in which nodes are told of the groups' masks."""
    told: dict[int, dict[int, int]] = {}
    for number, group in enumerate(groups):
        for node in group.told:
            told.setdefault(node, {})[group.dim] = number
    return marked(graph, told, found.features, found.sizes)


def _described(nodes: Sequence[Node], found: Layout, dim: int) -> tuple[Kind, str]:
    """What the units of a dim are, and where the program makes them; no name where they are none
    that anybody would cut, such as the taps of a convolution."""
    if dim == found.channels:
        return "channels", nodes[0].name
    for position, node in enumerate(nodes):
        if node.op == DISPATCH and found.branches[position][-1] == dim:
            combined = (
                n for n in nodes if n.op == COMBINE and found.branches[n.inputs[0]][-1] == dim
            )
            return "experts", next(combined, node).name
        if node.op == CONCAT and dim in found.features[position][:1]:
            return "heads", node.name
    for position, node in enumerate(nodes):
        if dim in found.features[position]:
            return ("channels" if position == 0 else "hidden"), node.name
    return "hidden", ""


class _Masked(NamedTuple):
    """What a mask of a dim scales, and which nodes are told of it; see `Group`."""

    places: tuple[Place, ...]
    told: tuple[int, ...]


def _dim_group(
    nodes: Sequence[Node], found: Layout, dim: int, ends: Sequence[End]
) -> _Masked | str:
    """What masks units of this dim, or why none of them can be cut. The block's own channels may
    end in no weight: the model's last norm and projection read them, too."""
    own = dim == found.channels
    if reason := found.kept.get(dim):
        return reason
    if found.sizes[dim] < 2 or not (ends or own):
        return "nothing sums over it"
    places, told = set[Place](), set[int]()
    units: list[Scaled | None] | None = None
    for end in ends:
        if end.kind == "rows":
            places |= {Place(end.node, axis) for axis in _row_axes(nodes, found, end.node, dim)}
            continue
        units = units or vanishing_units(nodes, found, dim)
        made = (units[child] for child in end.read) if end.kind == "zeros" else ()
        scaled = next((each for each in made if each is not None), None)
        node = nodes[end.node]
        if scaled is None and node.op == COMBINE:
            return f"no weight alone makes a unit of it 0 where {node.op} ({node.name}) sums"
        if scaled is None:
            told.add(end.node)
            continue
        places |= {Place(at, axis) for at in scaled for axis in _made_axes(nodes, found, at, dim)}
    if not places and not own:
        return f"no weight alone makes a unit of it 0 or reads it ({nodes[ends[0].node].name})"
    return _Masked(tuple(sorted(places)), tuple(sorted(told)))


def _row_axes(nodes: Sequence[Node], found: Layout, node: int, dim: int) -> list[int]:
    """Where the dim is among a weight's rows, counted over the dims of all its axes."""
    axes = found.weights[node]
    first = len(tuple(chain(*axes[:-2])))
    return [first + place for place, each in enumerate(axes[-2]) if each == dim]


def _made_axes(nodes: Sequence[Node], found: Layout, node: int, dim: int) -> list[int]:
    """Where the dim is among those of a weight that its node's state has as well."""
    flat = list(chain(*found.weights[node]))
    made = made_dims(nodes[node], node, found)
    rows = len(flat) - len(made)
    if not rows:
        return [place for place, each in enumerate(flat) if each == dim]
    branches = len(nodes[node].context)
    return [
        place
        for place, each in enumerate(flat)
        if each == dim and (place < branches or place >= branches + rows)
    ]


def _addends(nodes: Sequence[Node]) -> list[Group]:
    """Addends that can be cut: what is added to a state of the same type, and made 0 by weights
    that nothing else depends on. Of two such addends of one sum, the later one."""
    readers = [0] * len(nodes)
    for node in nodes:
        for child in node.inputs:
            readers[child] += 1
        if node.support >= 0:
            readers[node.support] += 1
    readers[-1] += 1
    states = vanishing_states(nodes, readers)
    found = []
    for position, node in enumerate(nodes):
        if node.op != "ADD" or node.type.axis in (KEYS, ENTRIES):
            continue
        for other, addend in sorted((node.inputs, node.inputs[::-1])):
            scaled = states[addend]
            if scaled is not None and nodes[other].type == node.type and other != addend:
                places = tuple(Place(each, -1) for each in sorted(scaled))
                ends = (position, addend)
                found.append(Group("addend", nodes[addend].name, 1, places, addend=ends))
                break
    return found


def _live(nodes: Sequence[Node], groups: Sequence[Group]) -> tuple[frozenset[frozenset[int]], ...]:
    """For each node, which addends have to be there for it to be read."""
    cut = {group.addend: number for number, group in enumerate(groups) if group.addend}
    live: list[frozenset[frozenset[int]]] = [frozenset()] * len(nodes)
    live[-1] = live[0] = frozenset({frozenset()})
    for position in range(len(nodes) - 1, -1, -1):
        node = nodes[position]
        support = (node.support,) if node.support not in (-1, position) else ()
        for child in {*node.inputs, *support}:
            number = cut.get((position, child))
            more = frozenset() if number is None else frozenset({number})
            ways = live[child] | {way | more for way in live[position]}
            live[child] = _shortest(ways)
    return tuple(live)


def _shortest(ways: frozenset[frozenset[int]]) -> frozenset[frozenset[int]]:
    """The sets of which no other one is a part."""
    return frozenset(way for way in ways if not any(other < way for other in ways))
