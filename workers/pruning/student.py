"""A model that is trained, or teaches: its graphs, functions and weights, and how it scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from keras import ops

from primitives.graph.build import Graph
from primitives.lowering.weights import WeightSpec
from workers.engines.engine import Loads
from workers.engines.learner import learner_of
from workers.engines.passes import Passes, summed
from workers.model.ends import embedding_and_head
from workers.model.model import Apply, Auxiliary, Layer, layers_of, outer_count, wrapped
from workers.pruning.plan import Array, Plan
from workers.spec.task import Task


class Model(NamedTuple):
    """The graph of each layer, the layers' functions, the values of all weights of the model in its
    order, and which of the whole model's channels it has; all where that is None."""

    graphs: tuple[Graph, ...]
    layers: tuple[Layer, ...]
    values: Sequence[Array]
    channels: Array | None = None

    @staticmethod
    def of(
        graphs: tuple[Graph, ...], task: Task, values: Sequence[Array],
        channels: Array | None = None,
    ) -> Model:  # fmt: skip
        return Model(graphs, layers_of(graphs, task), values, channels)

    @property
    def trainable(self) -> list[bool]:
        own = [spec.trainable for layer in self.layers for spec in layer.specs]
        return [True] * outer_count(self.layers, self.values) + own


def gated(plan: Plan, task: Task) -> tuple[Layer, ...]:
    """The layers of the masked model, each with a mask z of the whole layer as its last weight:
    x + z (block(x) - x)."""

    def with_gate(apply: Apply) -> Apply:
        def masked(x: Any, own: Sequence[Any], tokens: Any, seed: Any) -> tuple[Any, Auxiliary]:
            y, auxiliary = apply(x, own[:-1], tokens, seed)
            return x + own[-1] * (y - x), auxiliary

        return masked

    gate = WeightSpec("layer_mask", (), "ones", 1)
    layers = layers_of([layer.marked.graph for layer in plan.layers], task)
    return tuple(
        layer._replace(specs=(*layer.specs, gate), gathered=(*layer.gathered, False))
        for layer in wrapped(layers, with_gate)
    )


def scorer(model: Model, task: Task) -> Callable[[Any], tuple[float, Loads]]:
    """What gives, of windows [batches, batch, length], the mean loss in nats a token, in evaluation
    mode, and the loads of each routed call. It is compiled once for all windows of one shape."""
    learner = learner_of(task.training.backend)
    passes = Passes(model.layers, task, (), learner.integer, embedding_and_head(task.model))
    weights = [ops.convert_to_tensor(value) for value in model.values]
    scored = learner.compiled(passes.score)

    def score(windows: Any) -> tuple[float, Loads]:
        made = [scored(weights, ops.convert_to_tensor(batch, "int32")) for batch in windows]
        return summed(made, len(windows))

    return score
