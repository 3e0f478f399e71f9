"""What can be cut of a whole model: the groups of each layer, and each layer itself.

Masks of a model are a list for each layer: one array [count] for each of the layer's groups, and at
last one [1] for the layer as a whole, which is skipped where that is 0: x + z (block(x) - x).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from primitives.cutting.cut import Cut, cut
from primitives.cutting.masking import Reshape, masked
from primitives.cutting.terms import Term, expected, flops_terms, parameter_terms
from primitives.cutting.units import Cuttable, cuttable
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

    @cached_property
    def sizes(self) -> list[list[int]]:
        """Units of each group of each layer, and 1 for the layer itself."""
        return [[*(group.count for group in layer.groups), 1] for layer in self.layers]

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

    def outside(self, measure: Measure) -> float:
        """What of the measure no cut touches: the FLOPs of the output projection."""
        if measure == "parameters":
            return 0.0
        whole = task_cost(self.graph, self.task, self.vocabulary).flops_per_token
        return float(whole - self.inside("flops", self.all_kept(), np.sum))

    def inside(self, measure: Measure, kept: Masks, summed: Callable[[Any], Any]) -> Any:
        """The expected cost of the blocks where each unit is there with these probabilities."""
        total: Any = 0.0
        for terms, own in zip(self.terms[measure], kept, strict=True):
            total = total + expected(terms, own[:-1], summed) * own[-1][0]
        return total

    def masked(self, weights: Sequence[Any], masks: Masks, reshape: Reshape) -> list[Any]:
        """The model's weights under masks; each layer's are followed by its own mask, a scalar."""
        first, made = self.outer, list(weights[: self.outer])
        for layer, own in zip(self.layers, masks, strict=True):
            last = first + len(layer.layout.weights)
            made += masked(layer, weights[first:last], own[:-1], reshape)
            made.append(reshape(own[-1], ()))
            first = last
        return made


def plan(graph: Graph, task: Task, vocabulary: int) -> Plan:
    """The plan of a program's model; `vocabulary` counts the rows of the embedding."""
    known: dict[str, Cuttable] = {}
    rotary = POSITIONS[task.model.positions].rotary
    for each in layer_graphs(graph, task.model):
        known.setdefault(each.hash, cuttable(each, task.model.d_model, rotary))
    graphs = layer_graphs(graph, task.model)
    return Plan(graph, task, vocabulary, tuple(known[each.hash] for each in graphs))


@dataclass(frozen=True)
class Shape:
    """A smaller model's shape.

    Attributes:
        layers: which of the whole model's layers are left, by their number.
        cuts: what is left of each of them.
    """

    layers: tuple[int, ...]
    cuts: tuple[Cut, ...]

    @property
    def graphs(self) -> tuple[Graph, ...]:
        return tuple(each.graph for each in self.cuts)

    def weights(self, plan: Plan, values: Sequence[Array]) -> list[Array]:
        """The smaller model's weights from those of the whole one, which masks have scaled."""
        made, first = list(values[: plan.outer]), plan.outer
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
    for number, (layer, own) in enumerate(zip(plan.layers, kept, strict=True)):
        if own[-1][0]:
            made = cut(layer, [np.asarray(mask) != 0 for mask in own[:-1]])
            if len(made.graph.nodes) > 1:
                cuts[number] = made
    return Shape(tuple(cuts), tuple(cuts.values()))
