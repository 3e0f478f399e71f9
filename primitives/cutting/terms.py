"""What a partly masked block costs: parameters and FLOPs as sums of products of masks.

A term's amount counts in the share of its dims that is kept, and only while the node that it
belongs to is read. With masks of 0 and 1 the sums are exact; with probabilities they are
expectations of independent masks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, combinations
from typing import Any

import numpy as np

from primitives.cutting.units import Cuttable
from primitives.graph.build import COMBINE
from primitives.lowering.cost import flops_of_nodes
from primitives.lowering.dispatch import LoweringOptions, inside_of, regions, strategies
from primitives.lowering.weights import weight_specs


@dataclass(frozen=True, slots=True)
class Term:
    """One weight or operation.

    Attributes:
        amount: what it counts when nothing is masked.
        groups: the groups of which it has an axis each; one that occurs twice stands twice.
        live: the sets of addends of which one has to be there.
    """

    amount: float
    groups: tuple[int, ...]
    live: frozenset[frozenset[int]]


def parameter_terms(found: Cuttable) -> tuple[Term, ...]:
    """The block's trainable parameters, a term for each weight."""
    specs = weight_specs(found.graph, found.d_model)
    number = {group.dim: at for at, group in enumerate(found.groups) if group.dim >= 0}
    terms = []
    for spec, position in zip(specs, sorted(found.layout.weights), strict=True):
        if spec.trainable:
            dims = chain(*found.layout.weights[position])
            groups = tuple(sorted(number[dim] for dim in dims if dim in number))
            terms.append(Term(float(math.prod(spec.shape)), groups, found.live[position]))
    return tuple(terms)


def expected(
    terms: Sequence[Term], kept: Sequence[Any], summed: Callable[[Any], Any] = np.sum
) -> Any:
    """The sum of the terms where unit i of group g is there with probability kept[g][i]. Arrays are
    NumPy's, or a backend's with its own function that sums one; few operations make it quick to
    trace."""
    amounts: dict[tuple[tuple[int, ...], frozenset[frozenset[int]]], float] = {}
    for term in terms:
        alike = term.groups, term.live
        amounts[alike] = amounts.get(alike, 0.0) + term.amount
    sums = [summed(each) for each in kept]
    once = [total / each.shape[0] for total, each in zip(sums, kept, strict=True)]

    @cache
    def share_of(group: int, times: int) -> Any:
        if times != 2:
            return math.prod([once[group]] * times)
        # units i and j are there together: independent unless i == j
        total, size = sums[group], kept[group].shape[0]
        return (total * total - summed(kept[group] * kept[group]) + total) / size**2

    total: Any = 0.0
    for (groups, live), amount in amounts.items():
        for group in set(groups):
            amount = amount * share_of(group, groups.count(group))
        total = total + amount * _read(live, sums)
    return total


def _read(live: frozenset[frozenset[int]], sums: Sequence[Any]) -> Any:
    """The probability that all addends of one of the sets are there, by inclusion and exclusion."""
    if frozenset() in live:
        return 1.0
    total: Any = 0.0
    for count in range(1, len(live) + 1):
        for ways in combinations(sorted(live, key=sorted), count):
            chance: Any = (-1.0) ** (count + 1)
            for addend in frozenset().union(*ways):
                chance = chance * sums[addend]
            total = total + chance
    return total


def flops_terms(found: Cuttable, options: LoweringOptions) -> tuple[Term, ...]:
    """The block's forward FLOPs a token as its routed calls are lowered for `options`, a term for
    each node. Where tokens go to their experts alone, fewer experts do no less work."""
    nodes, layout = found.graph.nodes, found.layout
    number = {group.dim: at for at, group in enumerate(found.groups) if group.dim >= 0}
    sums = {group.addend[0]: at for at, group in enumerate(found.groups) if group.addend}
    routed = strategies(nodes, found.d_model, options, rewritten=False)
    around = regions(nodes)
    terms = []
    for position, amount in enumerate(flops_of_nodes(found.graph, found.d_model, options)):
        if not amount:
            continue
        idle, region = set[int](), around[nodes[position].inputs[0]]
        while region >= 0:
            if routed[region].kind != "every":
                idle.add(layout.branches[region][-1])
            region = around[inside_of(nodes, region)]
        dims = [dim for dim in _work_dims(found, position) if dim in number and dim not in idle]
        groups, live = tuple(sorted(number[dim] for dim in dims)), found.live[position]
        if position in sums:  # without its addend there is nothing to add
            live = frozenset(way | {sums[position]} for way in live)
        terms.append(Term(amount, groups, live))
    return tuple(terms)


def _work_dims(found: Cuttable, position: int) -> tuple[int, ...]:
    """The dims that the work of a node grows with."""
    layout, node = found.layout, found.graph.nodes[position]
    if position in layout.weights:
        shared = layout.branches[position][len(node.context) :]
        return (*shared, *chain(*layout.weights[position]))
    first = node.inputs[0]
    if node.op == "T-MAT MUL":
        return (*layout.branches[position], *layout.features[first])
    if node.op == COMBINE or node.op.startswith("RED"):
        return (*layout.branches[first], *layout.features[first])
    return (*layout.branches[position], *layout.features[position])
