"""Whether training would diverge at once: what two blocks at their start make of one short text.

Two things ruin the first steps of a program, and both show in a forward pass with initial weights,
long before anything is compiled:

- Values grow out of bounds, as products over many channels or exponentials of sums do.
- A quotient's lower part, or what a logarithm or a root is taken of, crosses zero. Of the millions
  of values of a real batch some come so near to it that the gradient is not finite. Where there are
  few of them, that is left to chance, and the program is let pass.

The rewritten graph is run (`rewrite`), as what is trained is: its softmax never overflows, and its
norms divide by a root that has a floor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Literal

import numpy as np

from primitives.graph.build import Graph, Node
from primitives.lowering.dispatch import feature_size, weight_shape
from primitives.lowering.numeric import Array, is_known, normals, results, started
from primitives.lowering.rewrite import lowered
from primitives.lowering.weights import has_weight
from primitives.ops.table import PRIMITIVES

Divergence = Literal["values grow out of bounds", "a singularity at zero"]

WIDTH = 32
LENGTH = 64
LAYERS = 2
"""Channels, positions and blocks of the probe at the most. More of them find little more; products
of matrices are small enough here that no library spreads them over threads."""

BOUND = 1e10
"""Of 848 programs that trained for some while on a GPU, none made values so large."""

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
    width, length = min(scale.d_model, WIDTH), min(scale.sequence_length, LENGTH)
    x = normals((1, length, width), length * width, 0, "float32") * math.sqrt(2 / width)
    weights = _weights(nodes, width, x.size)
    try:
        with np.errstate(all="ignore"):
            for _ in range(LAYERS):
                values = results(nodes, x, weights)
                if not all(map(_is_bounded, nodes, values)):
                    return "values grow out of bounds"
                if any(_is_singular(nodes, node, values, scale) for node in nodes):
                    return "a singularity at zero"
                x = values[-1]
    except (AttributeError, NameError):  # code of a plug-in that calls what is not run here
        return None
    return None


def _weights(nodes: Sequence[Node], width: int, place: int) -> Iterator[Array]:
    """Initial weights of one block after the other, cut from the normal numbers from `place` on."""
    for node in cycle(filter(has_weight, nodes)):
        shape = weight_shape(node.op, nodes[node.inputs[0]].type, node.type, width)
        full = (*node.context, *shape)
        row, size = PRIMITIVES[node.op].weight, math.prod(full)
        assert row is not None
        yield started(row.init, normals(full, size, place, "float32"), math.prod(shape[:-1]))
        place += size


def _is_bounded(node: Node, value: Array) -> bool:
    return bool(np.abs(_visible(node, value)).max() <= BOUND)  # not so where one is no number


def _is_singular(nodes: Sequence[Node], node: Node, values: Sequence[Array], scale: Scale) -> bool:
    """Whether the node has a pole at zero, and very many values of a batch are on both sides of it
    or at it."""
    if node.op not in _SINGULAR:
        return False
    child = node.inputs[_SINGULAR[node.op]]
    read = _visible(nodes[child], values[child])
    return bool(read.min() <= 0 <= read.max()) and _count(nodes[child], scale) >= MANY


def _count(node: Node, scale: Scale) -> int:
    """How many values of this node a batch has, in all layers."""
    features = feature_size(node.type, scale.d_model, scale.sequence_length)
    a_layer = scale.batch_size * scale.sequence_length * math.prod(node.type.branches) * features
    return a_layer * scale.layers


def _visible(node: Node, value: Array) -> Array:
    """The entries that exist: of a closed state, those up to each position."""
    if not node.type.closed:
        return value
    return value[..., np.tri(*value.shape[-2:], dtype=np.bool_)]
