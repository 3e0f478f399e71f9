"""A model in training while it is cut, and after: on TensorFlow, whatever backend trained it whole.

What a step computes is a pure function in keras.ops of the model's own passes; only gradients and
variables are TensorFlow's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from primitives.graph.build import Graph
from primitives.lowering.weights import WeightSpec
from workers.engines.optimizer import elementwise, make_optimizer
from workers.model.ends import ModelHead, embedding_and_head
from workers.model.model import (
    OBJECTIVE_STREAM,
    Apply,
    Auxiliary,
    Layer,
    Seeds,
    layers_of,
    outer_count,
    scoring_loss,
    through,
    weighed,
    wrapped,
)
from workers.model.parameters import Kind, Packing
from workers.pruning import gates
from workers.pruning.distillation import layer_loss, prediction_loss
from workers.pruning.failure import Diverged
from workers.pruning.plan import Array, Masks, Plan
from workers.pruning.target import Target, gone, price
from workers.spec.objectives import OBJECTIVES
from workers.spec.task import Task

GATE_STREAM = OBJECTIVE_STREAM + 1
"""The stream of the gates' draws: nothing else draws from it."""

START = 4.0
"""Log alpha of every gate at first: 99.6 % of draws are above 0."""

WARM_UP = 0.5
"""Share of the steps under gates in which the target grows to what is asked for."""


class Model(NamedTuple):
    """The graph of each layer, the layers' functions, and the values of all weights of the model
    in its order."""

    graphs: tuple[Graph, ...]
    layers: tuple[Layer, ...]
    values: Sequence[Array]

    @staticmethod
    def of(graphs: tuple[Graph, ...], task: Task, values: Sequence[Array]) -> Model:
        return Model(graphs, layers_of(graphs, task), values)

    @property
    def trainable(self) -> list[bool]:
        own = [spec.trainable for layer in self.layers for spec in layer.specs]
        return [True] * outer_count(self.layers, self.values) + own


@dataclass(frozen=True, slots=True)
class Distillation:
    """How much of a teacher's knowledge counts beside the loss on tokens: `predictions` times the
    divergence from its predictions, and 1 - `predictions` times that from its states (lambda and
    1 - lambda in CoFi); `tokens` times the objective's own loss."""

    predictions: float = 0.5
    tokens: float = 1.0


def gated(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The layers with a mask z of the whole layer as their last weight: x + z (block(x) - x)."""

    def with_gate(apply: Apply) -> Apply:
        def masked(x: Any, own: Sequence[Any], tokens: Any, seed: Any) -> tuple[Any, Auxiliary]:
            y, auxiliary = apply(x, own[:-1], tokens, seed)
            return x + own[-1] * (y - x), auxiliary

        return masked

    gate = WeightSpec("layer_mask", (), "ones", 1)
    return tuple(
        layer._replace(specs=(*layer.specs, gate), gathered=(*layer.gathered, False))
        for layer in wrapped(layers, with_gate)
    )


class Trainer:
    """A student in training for so many steps.

    With a plan and a target it learns gates, too; with a teacher it learns from its predictions and
    states. Equal arguments and windows give equal weights on one machine."""

    def __init__(
        self,
        student: Model,
        task: Task,
        seed: int,
        teacher: Model | None = None,
        pruned: tuple[Plan, Target, int] | None = None,
        distillation: Distillation | None = None,
    ) -> None:
        self._task, self._seed = task, seed & 0x7FFFFFFF
        self._teacher = teacher and (teacher.layers, [tf.constant(v) for v in teacher.values])
        self._distillation = distillation or Distillation()
        kinds: list[Kind] = ["weight" if learns else "state" for learns in student.trainable]
        matrix = np.eye(task.model.d_model, dtype=np.float32)  # the last weight
        values = [*(np.asarray(value, np.float32) for value in student.values), matrix]
        shapes = tuple(value.shape for value in values)
        self._packing = Packing(shapes, (*kinds, "weight"), elementwise(task.optimizer))
        self._learned = [v.value for v in self._packing.variables(values)]
        self._states = {
            place: tf.Variable(values[place]) for place in self._packing.places("state")
        }
        self._optimizer = make_optimizer(task.optimizer)
        self._optimizer.build(self._learned)
        self._layers, self._gates = student.layers, pruned
        self._places = list(range(len(values)))
        if pruned is not None:
            self._prepare_gates(*pruned)
        self._compiled = tf.function(self._step, autograph=False, reduce_retracing=True)
        self.share_gone = 0.0

    def _prepare_gates(self, plan: Plan, target: Target, steps: int) -> None:
        self._whole, self._outside = target.whole(plan), plan.outside(target.measure)
        units = sum(sum(sizes) for sizes in plan.sizes)
        self._log_alphas = tf.Variable(np.full(units, START, np.float32))
        self._flat = [self._log_alphas]
        self._prices = tf.Variable(np.zeros(2, np.float32))
        rate = max(0.1, 20 / max(steps, 1))
        self._gate_optimizer = keras.optimizers.Adam(rate)
        self._gate_optimizer.build(self._flat)
        self._price_optimizer = keras.optimizers.Adam(rate)
        self._price_optimizer.build([self._prices])
        self._layers = gated(self._layers)
        own, first = list(range(plan.outer)), plan.outer
        for layer in plan.layers:
            count = len(layer.layout.weights)
            own += [*range(first, first + count), -1]
            first += count
        self._places = own

    def train(self, windows: Any, number: int) -> float:
        """One step on windows [batch, length]; `number` counts the steps before it. Gives the loss
        on tokens, in nats; raises Diverged where that is not finite."""
        wanted = 0.0
        if self._gates is not None:
            _, target, steps = self._gates
            wanted = target.share * min(1.0, number / max(1.0, WARM_UP * steps))
        numbers = tf.constant([number, self._seed], tf.int32), tf.constant(wanted, tf.float32)
        loss, share = self._compiled(tf.convert_to_tensor(windows, tf.int32), *numbers)
        self.share_gone = float(share)
        if not math.isfinite(float(loss)):
            raise Diverged(
                f"the loss is {float(loss)} at step {number}; a smaller learning rate may help"
            )
        return float(loss)

    def _step(self, windows: Any, seed: Any, wanted: Any) -> tuple[Any, Any]:
        watched = [*self._learned]
        if self._gates is not None:
            watched += [*self._flat, self._prices]
        share = tf.zeros(())
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(watched)
            learned = self._packing.tensors([tf.convert_to_tensor(v) for v in self._learned])
            states = [tf.convert_to_tensor(each) for each in self._states.values()]
            *weights, matrix = self._packing.all(learned, states)
            extra: Any = 0.0
            if self._gates is not None:
                plan, target, _ = self._gates
                log_alphas = tf.convert_to_tensor(self._log_alphas)
                random = Seeds(seed, GATE_STREAM)
                draws = keras.random.uniform(log_alphas.shape, seed=random)
                masks = self._by_group(gates.drawn(log_alphas, draws))
                weights = plan.masked(weights, masks, ops.reshape)
                chances = self._by_group(gates.chance(log_alphas))
                share = gone(plan, target, chances, self._whole, self._outside)
                extra = price(share, wanted, self._prices)
            loss, tokens, updates = self._losses(weights, matrix, windows, seed)
            loss = loss + extra
        gradients = tape.gradient(loss, watched)
        count = len(self._learned)
        self._optimizer.apply(_whole(gradients[:count], watched[:count]), self._learned)
        if self._gates is not None:
            self._gate_optimizer.apply(_whole(gradients[count:-1], self._flat), self._flat)
            self._price_optimizer.apply([-gradients[-1]], [self._prices])
        for place, value in updates.items():
            self._states[self._places[place]].assign(value)
        return tokens, share

    def _by_group(self, flat: Any) -> Masks:
        """One vector of all units as an array for each group of each layer."""
        assert self._gates is not None
        sizes = self._gates[0].sizes
        ends = np.cumsum([count for own in sizes for count in own]).tolist()
        parts = iter(ops.split(flat, ends[:-1]) if len(ends) > 1 else [flat])
        return [[next(parts) for _ in own] for own in sizes]

    def _losses(
        self, weights: Any, matrix: Any, windows: Any, seed: Any
    ) -> tuple[Any, Any, dict[int, Any]]:
        """What the gradient is of, the loss on tokens, and new values of states by place."""
        objective = OBJECTIVES[self._task.training.objective]
        vocabulary = weights[0].shape[0] - objective.extra_rows
        batch = objective.batch(windows, vocabulary, Seeds(seed, OBJECTIVE_STREAM))
        outer = embedding_and_head(self._task.model)
        embedding, *positions, scale, shift = weights[: outer_count(self._layers, weights)]
        after: list[Any] = []
        x = outer.embed(batch.tokens, embedding, *positions)
        x, auxiliary = through(self._layers, weights, x, batch.tokens, True, seed, after)
        head = ModelHead((embedding, scale, shift), outer)
        tokens, count = weighed(objective.losses(x, batch, head), batch.counts)
        tokens = tokens if batch.counts is None else tokens / ops.maximum(count, 1e-6)
        loss = tokens + sum(auxiliary.losses) if auxiliary.losses else tokens
        if self._teacher is not None:
            layers, theirs = self._teacher
            states: list[Any] = []
            table, *places, theirs_scale, theirs_shift = theirs[: outer_count(layers, theirs)]
            y = outer.embed(batch.tokens, table, *places)
            y, _ = through(layers, theirs, y, batch.tokens, False, seed, states)
            taught = ModelHead((table, theirs_scale, theirs_shift), outer).logits(y)
            said = prediction_loss(head.logits(x), ops.stop_gradient(taught), batch.counts)
            shown = layer_loss(after, [ops.stop_gradient(s) for s in states], matrix)
            share = self._distillation.predictions
            loss = self._distillation.tokens * loss + share * said + (1 - share) * shown
        return loss, tokens, auxiliary.updates

    def values(self) -> list[Array]:
        """The weights as they stand, without masks."""
        learned = self._packing.tensors([tf.convert_to_tensor(v) for v in self._learned])
        states = [tf.convert_to_tensor(each) for each in self._states.values()]
        return [np.asarray(each) for each in self._packing.all(learned, states)[:-1]]

    def log_alphas(self) -> Masks:
        """What the gates are ordered by: where chances round to 1, these still differ."""
        return self._on_host(self._log_alphas)

    def settled(self) -> Masks:
        """The gates' masks without chance."""
        return self._on_host(gates.settled(tf.convert_to_tensor(self._log_alphas)))

    def _on_host(self, flat: Any) -> Masks:
        parts = self._by_group(tf.convert_to_tensor(flat))
        return [[np.asarray(each) for each in own] for own in parts]


def _whole(gradients: Sequence[Any], variables: Sequence[Any]) -> list[Any]:
    """Gradients with zeros where nothing depends on a variable, and those of rows in full."""
    return [
        tf.zeros_like(variable) if gradient is None else tf.convert_to_tensor(gradient)
        for gradient, variable in zip(gradients, variables, strict=True)
    ]


def score(model: Model, task: Task, windows: Any) -> float:
    """The mean loss, in nats a token, over windows [batches, batch, length], in evaluation mode."""
    objective = OBJECTIVES[task.training.objective]
    weights = [tf.constant(value) for value in model.values]
    seed, outer = tf.zeros(2, tf.int32), embedding_and_head(task.model)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def scored(batch: Any) -> tuple[Any, Any]:
        loss, weight, _ = scoring_loss(model.layers, weights, batch, seed, objective, outer)
        return loss, weight

    made = [scored(tf.convert_to_tensor(batch, tf.int32)) for batch in windows]
    return sum(float(loss) for loss, _ in made) / sum(float(weight) for _, weight in made)
