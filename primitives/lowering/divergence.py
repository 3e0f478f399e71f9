"""Whether training would diverge at once: what two blocks at their start make of one short text.

Two things ruin the first steps of a program, and both show in a forward pass with initial weights,
long before anything is compiled:

- Values grow out of bounds, as products over many channels or exponentials of sums do.
- A quotient's lower part, or what a logarithm or a root is taken of, crosses zero. Of the millions
  of values of a real batch some come so near to it that the gradient is not finite. Where there are
  few of them, that is left to chance, and the program is let pass.

The rewritten graph is run (`rewrite`), as what is trained is: its softmax never overflows, and its
norms divide by a root that has a floor. A node is run where its bound (`bounds`) leaves open how
large its values are, and so is what it reads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from primitives.graph.build import Graph, Node
from primitives.lowering.dispatch import feature_size
from primitives.lowering.numeric import NotRun, is_known
from primitives.lowering.probe import Block, Program, Sizes
from primitives.lowering.rewrite import lowered
from primitives.ops.state import StateType

Divergence = Literal["values grow out of bounds", "a singularity at zero"]

WIDTH = 32
LENGTH = 64
LAYERS = 2
"""Channels, positions and blocks of the probe at the most. More of them find little more; products
of matrices are small here (see `numeric.ONE_THREAD`)."""

BOUND = 1e10
"""Of 848 programs that trained for some while on a GPU, none made values so large."""

PROVEN = BOUND / 10
"""A node whose bound is no larger is not run. What lies between is more than rounding makes."""

MANY = 1e6
"""Of so many values of a batch, in all layers, that cross zero, some come too near to it. See
`tests.benchmarks.divergence`."""

_SINGULAR = {"DIVIDE": -1, "LOG": 0, "ABS ROOT": 0}
"""Operations with a pole of their value or gradient at zero, and which of their inputs that is."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The sizes that a program is trained at."""

    d_model: int
    sequence_length: int
    layers: int
    batch_size: int


def divergence(graph: Graph, scale: Scale, rotary: bool = False) -> Divergence | None:
    """Why a program would diverge within its first steps; None where nothing speaks for it, and for
    programs that cannot be run here (`numeric.is_known`)."""
    if not is_known(graph):
        return None
    nodes = lowered(graph, rotary)
    sizes = Sizes(min(scale.d_model, WIDTH), min(scale.sequence_length, LENGTH))
    try:
        with np.errstate(all="ignore"):
            for block in Program(nodes, sizes).blocks(LAYERS):
                if not all(largest <= BOUND for largest in block.bounds(PROVEN)):
                    return "values grow out of bounds"
                if any(_is_singular(nodes, node, block, scale) for node in nodes):
                    return "a singularity at zero"
    except NotRun:
        return None
    return None


def _is_singular(nodes: Sequence[Node], node: Node, block: Block, scale: Scale) -> bool:
    """Whether the node has a pole at zero, and very many values of a batch are on both sides of it
    or at it."""
    if node.op not in _SINGULAR:
        return False
    child = node.inputs[_SINGULAR[node.op]]
    if _count(nodes[child].type, scale) < MANY:
        return False
    visible = block.state(child).visible
    return bool(visible.min() <= 0 <= visible.max())


def _count(state: StateType, scale: Scale) -> int:
    """How many values of this type a batch has, in all layers."""
    features = feature_size(state, scale.d_model, scale.sequence_length)
    a_layer = scale.batch_size * scale.sequence_length * math.prod(state.branches) * features
    return a_layer * scale.layers
