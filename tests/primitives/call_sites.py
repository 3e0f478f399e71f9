"""Which weight belongs where in a program as written.

The canonical graph has weights in an order of its own; the reference interpreter asks for them by
call site. A program whose calls share no subroutine has a name for each site, and the same graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from primitives.graph.build import Graph, build
from primitives.language.dna import DNA, Subroutine
from primitives.lowering.weights import WeightSpec, weight_specs
from primitives.ops.table import PRIMITIVES
from tests.reference.interpreter import Array


def unshared(dna: DNA) -> DNA:
    """The program with a subroutine of its own for every call, named after the call's site, and
    states named after positions: a node's name, SITE.sPOSITION, then says where it belongs."""
    copies: list[Subroutine] = []

    def copy(index: int, site: str) -> int:
        number = len(copies)
        copies.append(dna.subroutines[index])
        rows = [
            row if isinstance(row.op, str) else row._replace(op=copy(row.op, f"{site}_{position}"))
            for position, row in enumerate(dna.subroutines[index].instructions)
        ]
        states = ("x", "y", *(f"s{position}" for position in range(len(rows))))
        copies[number] = Subroutine(site, tuple(rows), states)
        return number

    copy(0, "main")
    return replace(dna, subroutines=tuple(copies))


def by_site(dna: DNA, weights: Sequence[Array]) -> dict[str, Array]:
    """Weights in the canonical order of the program, by the sites that the interpreter knows."""
    apart = unshared(dna)
    graph = build(apart, bidirectional=True)
    assert isinstance(graph, Graph)
    rows = ((node, PRIMITIVES.get(node.op)) for node in graph.nodes)
    sites = [_site(apart, node.name) for node, row in rows if row and row.weight]
    return dict(zip(sites, weights, strict=True))


def _site(apart: DNA, name: str) -> str:
    """Where the op of a node of this name is: a call's value has the name of the call."""
    subroutines = {each.name: each.instructions for each in apart.subroutines}
    caller, _, position = name.partition(".s")
    site = f"{caller}_{position}"
    while isinstance(subroutines[caller][int(position)].op, int):
        caller, position = site, str(len(subroutines[site]) - 1)
        site = f"{caller}_{position}"
    return site


def random_weights(graph: Graph, width: int, rng: np.random.Generator) -> list[Array]:
    """Weights of the usual size, all different, in canonical order."""
    return [_random(spec, rng) for spec in weight_specs(graph, width)]


def _random(spec: WeightSpec, rng: np.random.Generator) -> Array:
    return rng.standard_normal(spec.shape) * spec.fan_in**-0.5 + (spec.init == "ones")
