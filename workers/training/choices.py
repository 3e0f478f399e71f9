"""Which experts a trained model sends each token to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from primitives.graph.build import COMBINE, Graph
from primitives.lowering.layer import Array
from workers.spec.objectives import OBJECTIVES
from workers.spec.task import Task

Integers = npt.NDArray[np.integer[Any]]

MOST_ENTRIES = 1 << 22
"""Gate entries that are looked at, of all routed calls; there are fewer windows where this says
so."""


@dataclass(frozen=True, slots=True)
class Choices:
    """The choices of one routed call for N tokens.

    Attributes:
        layer: the layer that the call stands in, from 1.
        count: how many experts it has, those of all heads around it.
        experts: [N, entries], an expert from 0 for each gate entry; -1 where the gate is 0.
        best: [N], the expert with the largest gate; -1 where all are 0.
    """

    layer: int
    count: int
    experts: Integers
    best: Integers


def choices_of(
    graph: Graph, task: Task, values: Sequence[Array], windows: Integers
) -> tuple[Integers, list[Choices]]:
    """The tokens that the model reads in windows [batches, batch, length], [N], and the choices of
    every routed call that stands in no other one, in the order of the model. `values` are the
    model's weights. In evaluation mode, where nothing is dropped."""
    from workers.model.shape import layer_graphs

    calls = [
        (layer, node)
        for layer, each in enumerate(layer_graphs(graph, task.model), 1)
        for node in each.nodes
        if node.op == COMBINE and all(size > 0 for size in node.context[:-1])
    ]
    if not calls:
        return np.zeros(0, np.int32), []
    function = _model(graph, task, values)
    tokens: list[Integers] = []
    made: list[list[tuple[Integers, Integers]]] = [[] for _ in calls]
    entries = 0
    for batch in windows:
        read, *parts = (np.asarray(part) for part in function(batch.astype(np.int32)))
        tokens.append(read.reshape(-1))
        for place, (experts, gates) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
            made[place].append(_flat(experts, gates))
            entries += experts.size
        if entries >= MOST_ENTRIES:
            break
    found = []
    for (layer, node), pieces in zip(calls, made, strict=True):
        experts, best = (np.concatenate(part) for part in zip(*pieces, strict=True))
        count = -node.context[-1] * int(np.prod(node.context[:-1], dtype=int))
        found.append(Choices(layer, count, experts, best))
    return np.concatenate(tokens), found


def _flat(experts: Integers, gates: Any) -> tuple[Integers, Integers]:
    """A batch's experts [tokens, entries] and the best of each."""
    experts = experts.reshape(-1, experts.shape[-1])
    gates = np.abs(gates.reshape(experts.shape))
    best = np.take_along_axis(experts, gates.argmax(-1)[:, None], 1)[:, 0]
    return experts, best


def _model(graph: Graph, task: Task, values: Sequence[Array]) -> Any:
    """Windows [batch, length] -> the tokens that the model reads [batch, T], and two arrays for
    each routed call (see `kernels.choices.entry_choices`)."""
    from keras import ops

    from workers.model.compiled import compiled
    from workers.model.ends import embedding_and_head
    from workers.model.model import layers_of, token_choices
    from workers.model.shape import layer_graphs

    layers = layers_of(layer_graphs(graph, task.model), task, record="choices")
    outer = embedding_and_head(task.model)
    weights = [ops.convert_to_tensor(value) for value in values]
    objective = OBJECTIVES[task.training.objective]
    return compiled(lambda windows: token_choices(layers, weights, windows, objective, outer))
