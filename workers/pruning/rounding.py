"""Which units go: those of the lowest score, as many as the target needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from primitives.cutting.units import Cuttable, Group
from primitives.graph.build import COMBINE
from workers.engines.engine import Loads
from workers.pruning.failure import TooMuch
from workers.pruning.plan import Array, Masks, Measure, Plan, shared


def rounded(plan: Plan, scores: Masks, measure: Measure, most: float) -> Masks:
    """Masks of 0 and 1 under which the model costs at most so much: the fewest units of the lowest
    scores go. Each group keeps its best unit, and the model its best layer with one addend; where
    a layer or an addend goes, what lies in it does not count. A score that is infinite is never
    cut.

    Raises TooMuch where not even all of that is enough."""
    order = _order(plan, scores)
    few, many = 0, len(order)
    if _cost(plan, order, many, measure) > most:
        least = _cost(plan, order, many, measure)
        raise TooMuch(
            f"the target leaves {most:,.0f} {measure}; at least {least:,.0f} have to stay"
        )
    while few < many:
        middle = (few + many) // 2
        if _cost(plan, order, middle, measure) <= most:
            many = middle
        else:
            few = middle + 1
    return _without(plan, order[:many])


Unit = tuple[int, int, int]
"""A layer, a group of it (its last one is the layer itself) and a unit. The channels are the one
group behind the layers."""


def _order(plan: Plan, scores: Masks) -> list[Unit]:
    """The units that may go, the lowest score first."""
    found: list[tuple[float, Unit]] = []
    last = _last(plan, scores)
    for layer, own in enumerate(scores):
        for group, values in enumerate(own):
            whole = layer < len(plan.layers) and (
                group == len(own) - 1 or plan.layers[layer].groups[group].dim < 0
            )
            best = -1 if whole else int(np.argmax(values))
            found += [
                (float(value), (layer, group, unit))
                for unit, value in enumerate(np.asarray(values))
                if unit != best and np.isfinite(value) and (layer, group) not in last
            ]
    return [unit for _, unit in sorted(found)]


def _last(plan: Plan, scores: Masks) -> set[tuple[int, int]]:
    """What stays so that something does: the best layer, and its best addend if it has any."""
    layer = max(range(len(plan.layers)), key=lambda number: float(scores[number][-1][0]))
    own, groups = scores[layer], plan.layers[layer].groups
    addends = [number for number, group in enumerate(groups) if group.addend]
    best = sorted(addends, key=lambda number: float(own[number][0]))[-1:]
    return {(layer, len(own) - 1), *((layer, number) for number in best)}


def _without(plan: Plan, gone: Sequence[Unit]) -> Masks:
    kept = plan.all_kept()
    for layer, group, unit in gone:
        kept[layer][group][unit] = 0
    return kept


def _cost(plan: Plan, order: Sequence[Unit], count: int, measure: Measure) -> float:
    return float(plan.cost(measure, _without(plan, order[:count]), np.sum))


def magnitudes(plan: Plan, values: Sequence[Array]) -> Masks:
    """For each unit the root of the mean square of the weights that its mask scales. Addends rank
    behind all of them, and layers are never cut: their weights' size says nothing of them."""
    first, found = plan.outer, list[list[Array]]()
    channels = np.zeros(plan.task.model.d_model), 0
    for layer in plan.layers:
        last = first + len(layer.layout.weights)
        own = list[Array]()
        for group in layer.groups:
            total, count = _squares(layer, group, values[first:last])
            if shared(group):
                channels = channels[0] + total, channels[1] + count
                continue
            behind = 1e6 if group.addend else 0.0
            own.append(np.sqrt(total / max(count, 1)) + behind)
        found.append([*own, np.full(1, np.inf)])
        first = last
    return [*found, [np.sqrt(channels[0] / max(channels[1], 1))] if plan.channels else []]


def _squares(layer: Cuttable, group: Group, weights: Sequence[Array]) -> tuple[Array, int]:
    """For each unit the sum of squares of the weights that its mask scales, and their number."""
    numbers = {position: number for number, position in enumerate(sorted(layer.layout.weights))}
    total, count = np.zeros(group.count), 0
    for node, axis in group.places:
        squares = np.square(weights[numbers[node]], dtype=np.float64)
        sizes = [layer.layout.sizes[d] for axes in layer.layout.weights[node] for d in axes]
        if axis >= 0:
            rows = np.moveaxis(squares.reshape(sizes), axis, 0).reshape(group.count, -1)
            total, count = total + rows.sum(1), count + rows.shape[1]
        else:
            total, count = total + squares.sum(), count + squares.size
    return total, count


def usages(plan: Plan, values: Sequence[Array], loads: Loads) -> Masks:
    """For each expert the share of its call's tokens that went to it, from a model's `loads`. All
    other units rank behind, by `magnitudes`: they go where experts are not enough."""
    *layers, channels = magnitudes(plan, values)
    calls = iter(loads)
    for layer, own in zip(plan.layers, layers, strict=True):
        shares: dict[int, Array] = {}
        for node in layer.graph.nodes:
            if node.op == COMBINE:
                load, dim = next(calls)[0], layer.layout.branches[node.inputs[0]][-1]
                shares[dim] = shares.get(dim, 0.0) + load / max(float(load.sum()), 1.0)
        for number, group in enumerate(layer.groups[: len(own) - 1]):
            experts = group.kind == "experts"
            own[number] = shares[group.dim] if experts else own[number] + 1e3
    return [*layers, [each + 1e3 for each in channels]]
