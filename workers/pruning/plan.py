"""What can be cut of a whole model: the groups of each layer, each layer itself, and the channels,
d_model of them, that all layers share.

Masks of a model are a list for each layer: one array [count] for each of the layer's own groups,
and at last one [1] for the layer as a whole: x + z (block(x) - x), which is x where z is 0.
Behind the layers stands a list for the model: one array [d_model] for its channels, or nothing
where these cannot be cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from primitives.cutting.cut import Cut, cut
from primitives.cutting.marking import staying
from primitives.cutting.masking import masked, scaled
from primitives.cutting.terms import Term, expected, flops_terms, parameter_terms
from primitives.cutting.units import Cuttable, Group, cuttable
from primitives.graph.build import Graph
from workers.model.shape import layer_graphs
from workers.spec.fit import lowering_options, task_cost
from workers.spec.positions import POSITIONS
from workers.spec.task import Task

Array = npt.NDArray[Any]
Masks = list[list[Any]]

Measure = Literal["parameters", "flops"]
"""What is saved: trainable parameters of the blocks, or forward FLOPs a token of the whole
model."""


@dataclass(frozen=True)
class Plan:
    """A model's layers as far as they can be cut.

    Attributes:
        graph: the program's.
        task: what the model was trained for.
        vocabulary: rows of its embedding.
        layers: what can be cut of each layer.
    """

    graph: Graph
    task: Task
    vocabulary: int
    layers: tuple[Cuttable, ...]

    @property
    def outer(self) -> int:
        """How many weights of the model, the first ones, are around its blocks."""
        return 3 + POSITIONS[self.task.model.positions].bounded

    @property
    def channels(self) -> bool:
        """Whether the model's channels can be cut."""
        return all(layer.channels for layer in self.layers)

    @cached_property
    def sizes(self) -> list[list[int]]:
        """Units of each group of each layer, and 1 for the layer itself; at last the channels."""
        made = [
            [*(group.count for group in layer.groups if not shared(group)), 1]
            for layer in self.layers
        ]
        return [*made, [self.task.model.d_model] if self.channels else []]

    def of_layers(self, masks: Masks) -> list[list[Any]]:
        """The masks of each layer: one for each of its groups, that of channels among them, and at
        last its own."""
        *layers, channels = masks
        return [[*own[:-1], *channels, own[-1]] for own in layers]

    def all_kept(self) -> Masks:
        """Masks under which nothing is masked."""
        return [[np.ones(size, np.float32) for size in sizes] for sizes in self.sizes]

    @cached_property
    def terms(self) -> dict[Measure, list[tuple[Term, ...]]]:
        """What each layer costs."""
        options = lowering_options(self.task)
        return {
            "parameters": [parameter_terms(layer) for layer in self.layers],
            "flops": [flops_terms(layer, options) for layer in self.layers],
        }

    @cached_property
    def _projection(self) -> float:
        """FLOPs a token outside the blocks: those of the output projection."""
        blocks = self._blocks("flops", self.all_kept(), np.sum)
        return float(task_cost(self.graph, self.task, self.vocabulary).flops_per_token - blocks)

    def cost(self, measure: Measure, kept: Masks, summed: Callable[[Any], Any]) -> Any:
        """The expected cost where each unit is there with these probabilities."""
        blocks = self._blocks(measure, kept, summed)
        if measure == "parameters":
            return blocks
        width = self.task.model.d_model
        share = summed(kept[-1][0]) / width if self.channels else 1.0
        return blocks + self._projection * share

    def _blocks(self, measure: Measure, kept: Masks, summed: Callable[[Any], Any]) -> Any:
        total: Any = 0.0
        for terms, own in zip(self.terms[measure], self.of_layers(kept), strict=True):
            total = total + expected(terms, own[:-1], summed) * own[-1][0]
        return total

    def masked(self, weights: Sequence[Any], masks: Masks, xp: Any) -> list[Any]:
        """The masked model's weights; each layer's are followed by its own mask, a scalar. The last
        norm is one over all channels, so that the model has to `spread` what comes to it."""
        made = self._outside(weights, masks)
        if self.channels:
            stays = staying(masks[-1][0], xp)
            made[-2] = made[-2] * xp.sqrt(xp.sum(stays) / stays.shape[0])
        for layer, own, values in self._layers(weights, masks):
            made += masked(layer, values, own[:-1], xp)
            made.append(xp.reshape(own[-1], ()))
        return made

    def scaled(self, weights: Sequence[Any], masks: Masks, xp: Any) -> list[Any]:
        """The model's weights, scaled by masks: those that a smaller one has a part of."""
        made = self._outside(weights, masks)
        for layer, own, values in self._layers(weights, masks):
            made += scaled(layer, values, own[:-1], xp)
        return made

    def _outside(self, weights: Sequence[Any], masks: Masks) -> list[Any]:
        """Those around the blocks: what the last norm gives of a channel is scaled by its mask."""
        *tables, scale, shift = weights[: self.outer]
        for mask in masks[-1]:
            scale, shift = scale * mask, shift * mask
        return [*tables, scale, shift]

    def _layers(
        self, weights: Sequence[Any], masks: Masks
    ) -> Iterator[tuple[Cuttable, list[Any], Sequence[Any]]]:
        """Each layer with its masks and weights."""
        first = self.outer
        for layer, own in zip(self.layers, self.of_layers(masks), strict=True):
            last = first + len(layer.layout.weights)
            yield layer, own, weights[first:last]
            first = last


def shared(group: Group) -> bool:
    """Whether the group is that of the model's channels, which all layers share."""
    return group.kind == "channels"


def spread(x: Any, mask: Any, xp: Any) -> Any:
    """x [..., d_model] as a layer norm over all channels has to read it to be one over those of
    which the mask [d_model] leaves anything. The others get the mean of these, so that they count
    for nothing, and all are scaled so that the variance is that of the channels that stay. What the
    norm gives is larger by the same factor, which `Plan.masked` takes from its scale."""
    stays = staying(mask, xp)
    count = xp.sum(stays)
    mean = xp.sum(x * stays, axis=-1, keepdims=True) / count
    return (x * stays + mean * (1 - stays)) * xp.sqrt(stays.shape[0] / count)


COUNTED = "sinusoidal positions say by a channel's number which wave it has"


def plan(graph: Graph, task: Task, vocabulary: int) -> Plan:
    """The plan of a program's model; `vocabulary` counts the rows of the embedding. Channels can be
    cut where every layer's block lets them go."""
    positions, width = POSITIONS[task.model.positions], task.model.d_model
    graphs = layer_graphs(graph, task.model)
    distinct = {each.hash: each for each in graphs}.values()
    known = {each.hash: cuttable(each, width, positions.rotary) for each in distinct}
    whole = COUNTED if task.model.positions == "sinusoidal" else ""
    for each in known.values():
        whole = whole or ("" if each.channels else _why_whole(each))
    if whole:
        known = {each.hash: cuttable(each, width, positions.rotary, whole) for each in distinct}
    return Plan(graph, task, vocabulary, tuple(known[each.hash] for each in graphs))


def _why_whole(layer: Cuttable) -> str:
    """Why a layer's channels cannot be cut."""
    dims = layer.layout.features[0]
    return next(layer.layout.kept[dim] for dim in dims if dim in layer.layout.kept)


@dataclass(frozen=True)
class Shape:
    """A smaller model's shape.

    Attributes:
        layers: which of the whole model's layers are left, by their number.
        cuts: what is left of each of them.
        channels: [d_model], which of the model's channels stay.
    """

    layers: tuple[int, ...]
    cuts: tuple[Cut, ...]
    channels: npt.NDArray[np.bool_]

    @property
    def graphs(self) -> tuple[Graph, ...]:
        return tuple(each.graph for each in self.cuts)

    def weights(self, plan: Plan, values: Sequence[Array]) -> list[Array]:
        """The smaller model's weights from those of the whole one, which masks have scaled."""
        made, first = [each[..., self.channels] for each in values[: plan.outer]], plan.outer
        parts = dict(zip(self.layers, self.cuts, strict=True))
        for number, layer in enumerate(plan.layers):
            last = first + len(layer.layout.weights)
            if number in parts:
                made += parts[number].weights(values[first:last])
            first = last
        return made


def smaller(plan: Plan, kept: Masks) -> Shape:
    """The shape that is left where only units with a mask other than 0 stay. A layer of which
    nothing is left but its input goes, too."""
    cuts = {}
    for number, (layer, own) in enumerate(zip(plan.layers, plan.of_layers(kept), strict=True)):
        if own[-1][0]:
            made = cut(layer, [np.asarray(mask) != 0 for mask in own[:-1]])
            if len(made.graph.nodes) > 1:
                cuts[number] = made
    channels = [np.asarray(mask) != 0 for mask in kept[-1]]
    every = np.ones(plan.task.model.d_model, np.bool_)
    return Shape(tuple(cuts), tuple(cuts.values()), channels[0] if channels else every)
