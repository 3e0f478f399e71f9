"""From a program to the graph of what it computes, or to the reason why it computes nothing.

Calls are inlined once per call site (`inline`), bank values take the place of indices, every node
gets its type (`typing`), and commutative inputs and the numbering follow from structure alone
(`canonical`). Two programs with equal hashes compute the same function of the same weights in the
same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from primitives.graph.canonical import canonical
from primitives.graph.inline import COMBINE, CONCAT, DISPATCH, INPUT, Inlined
from primitives.graph.typing import TypeFault
from primitives.language.dna import DNA, INPUTS
from primitives.ops.state import BLOCK, Mismatch, StateType

__all__ = ["COMBINE", "CONCAT", "DISPATCH", "INPUT", "KEEP", "Graph", "IllTyped", "Node", "build"]

KEEP = "KEEP"
"""The op that smaller graphs have besides: gates without those of experts that were cut."""


class Node(NamedTuple):
    """One operation.

    Attributes:
        op: a primitive's name, or INPUT, CONCAT, DISPATCH or COMBINE.
        inputs: positions of earlier nodes.
        value: the constant (C MUL, MAX, MIN), the dim in units (CONV) or the number of branches
            (CONCAT), else 0.
        context: the branch axes of the weights, or of a DISPATCH, or those that a CONCAT leaves,
            which tell whether it joins branches or repeats; else ().
        type: the type of its state.
        name: where the program says it, SUBROUTINE.STATE.
        count: the count that it reads, else 0.
        support: the position of the node that made a sparse state's indices, else -1.
    """

    op: str
    inputs: tuple[int, ...]
    value: float
    context: tuple[int, ...]
    type: StateType
    name: str
    count: int = 0  # type: ignore[assignment]  # nobody counts a node's fields
    support: int = -1


class Graph:
    """The canonical form of a program that type-checks.

    `hash` is 128 bits in hexadecimal; it covers `every`, which blocks run the program. `nodes` are
    in canonical order, the block's input first and its output last; they are made when first asked
    for, as most candidates need only their hash."""

    __slots__ = ("_inlined", "_nodes", "_order", "every", "hash")

    def __init__(self, inlined: Inlined, output: int) -> None:
        self._inlined = inlined
        self.every = inlined.dna.every
        self._order, self.hash = canonical(output, inlined.inputs, inlined.tags, self.every)
        self._nodes: tuple[Node, ...] | None = None

    @property
    def ops(self) -> set[str]:
        """Which operations the program has."""
        return {self._inlined.tags[node].op for node in self._order}

    @property
    def nodes(self) -> tuple[Node, ...]:
        if self._nodes is None:
            self._nodes = _nodes(self._inlined, self._order)
        return self._nodes


@dataclass(frozen=True, slots=True)
class IllTyped:
    """Why a program has no type: `where` is SUBROUTINE.STATE, with the calls around it."""

    mismatch: Mismatch
    where: str

    @property
    def kind(self) -> str:
        """What is wrong, as one of few kinds that can be counted."""
        return self.mismatch.kind

    @property
    def reason(self) -> str:
        """What is wrong, as a sentence."""
        return str(self.mismatch)

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


def build(dna: DNA, bidirectional: bool = False) -> Graph | IllTyped:
    """The canonical graph of a well-formed DNA, or why its live part does not type-check.

    In a `bidirectional` task every position may see every other one. A program that has a type in
    other tasks cannot see the future, and has the same graph in both.
    """
    inlined = Inlined(dna, bidirectional)
    try:
        output = inlined.call(0, 0, 0, ())
    except TypeFault as found:
        calls = [_name(dna, index, position) for index, position in reversed(found.places)]
        return IllTyped(found.mismatch, " > ".join(calls))
    except RecursionError:
        return IllTyped(Mismatch("calls nest too deeply", "; call fewer subroutines"), "main")
    made = inlined.types[output]
    if made != BLOCK:
        fault = Mismatch("the block must give d_model channels", f", this one gives {made}")
        return IllTyped(fault, "main")
    return Graph(inlined, output)


def _nodes(inlined: Inlined, order: list[int]) -> tuple[Node, ...]:
    """The nodes in this order, their inputs and supports by position in it."""
    ranks = {node: rank for rank, node in enumerate(order)}
    supports = {node: ranks[made] for node, made in inlined.supports.items() if node in ranks}
    made = []
    for node in order:
        tag, inputs = inlined.tags[node], tuple([ranks[child] for child in inlined.inputs[node]])
        name, support = _name(inlined.dna, *inlined.places[node]), supports.get(node, -1)
        op, value, context, count, *_ = tag
        made.append(Node(op, inputs, value, context, inlined.types[node], name, count, support))
    return tuple(made)


def _name(dna: DNA, index: int, position: int) -> str:
    if index < 0:
        return "x"
    subroutine = dna.subroutines[index]
    return f"{subroutine.name}.{subroutine.states[INPUTS + position]}"
