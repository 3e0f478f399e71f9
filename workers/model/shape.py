"""Names and shapes of a model's weights, which program each layer runs, and start values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from primitives.graph.build import Graph
from primitives.lowering.cost import program_layers
from primitives.lowering.dispatch import feature_size
from primitives.lowering.weights import WeightSpec, weight_specs
from primitives.programs.seeds import other_graph
from workers.spec.objectives import OBJECTIVES
from workers.spec.positions import POSITIONS
from workers.spec.task import ModelSpec, Task

if TYPE_CHECKING:  # it imports Keras
    from primitives.lowering.layer import Array


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Names and shapes of a model's weights, in order; `blocks` holds those of each layer, none for
    a layer that has those of an earlier one. `width` is how many channels there are between them:
    d_model, or what is left of it."""

    spec: ModelSpec
    width: int
    vocabulary: int
    blocks: tuple[tuple[WeightSpec, ...], ...]

    @property
    def outer(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the weights around the blocks, by name."""
        width = self.width
        made: dict[str, tuple[int, ...]] = {"embedding": (self.vocabulary, width)}
        if POSITIONS[self.spec.positions].bounded:
            made["positions"] = (self.spec.sequence_length, width)
        return {**made, "norm_scale": (width,), "norm_shift": (width,)}

    @property
    def names(self) -> tuple[str, ...]:
        inside = (f"blocks/{i}/{w.name}" for i, block in enumerate(self.blocks) for w in block)
        return (*self.outer, *inside)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return (*self.outer.values(), *(weight.shape for block in self.blocks for weight in block))

    @property
    def trainable(self) -> tuple[bool, ...]:
        return (*(True for _ in self.outer), *(w.trainable for b in self.blocks for w in b))


def model_shape(graph: Graph, spec: ModelSpec, vocabulary: int) -> ModelShape:
    """`vocabulary` counts the rows of the embedding."""
    return shape_of(layer_graphs(graph, spec), spec, vocabulary)


def shape_of(graphs: Sequence[Graph], spec: ModelSpec, vocabulary: int) -> ModelShape:
    """The shape of a model with a graph of its own for each layer."""
    owners = weight_owners(graphs, spec)
    own = (
        weight_specs(graph, spec.d_model) if owner == layer else ()
        for layer, (graph, owner) in enumerate(zip(graphs, owners, strict=True))
    )
    return ModelShape(spec, width_of(graphs, spec.d_model), vocabulary, tuple(own))


def width_of(graphs: Sequence[Graph], d_model: int) -> int:
    """The channels that blocks read and give: d_model, or of smaller graphs those that are left."""
    return feature_size(graphs[0].nodes[0].type, d_model, 0)


def weight_owners(graphs: Sequence[Graph], spec: ModelSpec) -> tuple[int, ...]:
    """For each layer the number of the one whose weights it has: its own, or, where layers share,
    that of the first one of the same program."""
    if not spec.share_layers:
        return tuple(range(len(graphs)))
    first: dict[str, int] = {}
    return tuple(first.setdefault(graph.hash, layer) for layer, graph in enumerate(graphs))


def layer_graphs(graph: Graph, spec: ModelSpec) -> tuple[Graph, ...]:
    """The program of each layer: the candidate's, or the other one."""
    own = program_layers(graph.every, spec.layers)
    if len(own) == spec.layers:
        return (graph,) * spec.layers
    other = other_graph(spec.other, spec.d_model)
    return tuple(graph if layer in own else other for layer in range(spec.layers))


def embedding_rows(task: Task, vocabulary: int) -> int:
    """A row for each token, and those that the objective adds, such as one for hidden tokens."""
    return vocabulary + OBJECTIVES[task.training.objective].extra_rows


def initial_model(shape: ModelShape, seed: int) -> list[Array]:
    """Start values of every weight, in order, the same on every machine and backend."""
    from primitives.lowering.layer import initial_weights

    rng = np.random.default_rng(seed)
    width = shape.width
    scale = np.float32(width**-0.5)
    *tables, _, _ = shape.outer.values()
    return [
        *(rng.standard_normal(table, np.float32) * scale for table in tables),
        np.ones(width, np.float32),
        np.zeros(width, np.float32),
        *initial_weights([weight for block in shape.blocks for weight in block], rng),
    ]
