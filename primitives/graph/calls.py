"""The calls that each node of a graph lies in: what a drawing needs, and hashing does not."""

from __future__ import annotations

from typing import NamedTuple

from primitives.graph.canonical import Tag, canonical
from primitives.graph.inline import Context, Inlined, Place
from primitives.graph.liveness import Step
from primitives.language.dna import DNA, INPUTS
from primitives.ops.state import StateType


class Call(NamedTuple):
    """A call around a node: the caller's state that it makes, the subroutine that runs, and how
    often beside each other: 8 for a call in 8 branches, -4 for one that is routed to 4 experts, 1
    for any other."""

    state: str
    subroutine: str
    times: int


Calls = tuple[Call, ...]
"""From the call in main inwards; () in main itself."""


def calls(dna: DNA, bidirectional: bool = False) -> list[Calls]:
    """The calls around each node of `build(dna, bidirectional)`, in the order of its nodes. The
    program has to type-check. A node that several calls share lies in the first of them."""
    return [site.calls for site in sites(dna, bidirectional)]


class Site(NamedTuple):
    """Where a node was made: the calls around it, and the state of its own instruction as
    SUBROUTINE.STATE. A graph names the value of a subroutine after the state that calls it; this
    name stays as it is when another instruction becomes the value."""

    calls: Calls
    state: str


def sites(dna: DNA, bidirectional: bool = False) -> list[Site]:
    """The same with the state that each node is."""
    traced = _Traced(dna, bidirectional)
    output = traced.call(0, 0, 0, ())
    order, _ = canonical(output, traced.inputs, traced.tags, dna.every)
    return [traced.sites[node] for node in order]


class _Traced(Inlined):
    """Inlining that notes the calls around each node that it makes."""

    def __init__(self, dna: DNA, bidirectional: bool) -> None:
        super().__init__(dna, bidirectional)
        self.sites = [Site((), "x")]
        self._calls: Calls = ()
        self._context: Context = ()
        self._place: Place | None = None

    def call(self, index: int, x: int, y: int, context: Context) -> int:
        outside = self._calls, self._context
        if self._place is not None:
            caller, position = self._place
            state = self.dna.subroutines[caller].states[INPUTS + position]
            times = context[-1] if len(context) > len(self._context) else 1
            name = self.dna.subroutines[index].name
            self._calls = (*self._calls, Call(state, name, times))
        self._context = context
        node = super().call(index, x, y, context)
        self._calls, self._context = outside
        return node

    def _called(self, step: Step, x: int, y: int, context: Context, place: Place) -> int:
        self._place = place
        return super()._called(step, x, y, context, place)

    def _add(self, inputs: tuple[int, ...], tag: Tag, made: StateType, place: Place) -> int:
        index, position = place
        subroutine = self.dna.subroutines[index]
        state = f"{subroutine.name}.{subroutine.states[INPUTS + position]}"
        self.sites.append(Site(self._calls, state))
        return super()._add(inputs, tag, made, place)
