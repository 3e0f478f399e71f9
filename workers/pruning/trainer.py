"""A model in training while it is cut, and after, on its task's backend.

What a step computes is a pure function in keras.ops of the model's own passes; a backend's learner
takes its gradients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from primitives.kernels.tasks import ids_of
from workers.engines.learner import Group, learner_of
from workers.engines.optimizer import elementwise, make_optimizer
from workers.machine.backends import BACKENDS
from workers.model.ends import ModelHead, embedding_and_head
from workers.model.model import OBJECTIVE_STREAM, Seeds, outer_count, prepared, through, weighed
from workers.model.parameters import Kind, Packing
from workers.pruning import gates
from workers.pruning.distillation import layer_loss, prediction_loss
from workers.pruning.failure import Diverged
from workers.pruning.plan import Array, Masks, Plan, spread
from workers.pruning.student import Model, gated
from workers.pruning.target import Target, gone, price
from workers.spec.objectives import OBJECTIVES
from workers.spec.task import Task

GATE_STREAM = OBJECTIVE_STREAM + 1
"""The stream of the gates' draws: nothing else draws from it."""

START = 4.0
"""Log alpha of every gate at first: 99.6 % of draws are above 0."""

GATE_RATE, TRAVEL = 0.1, 20.0
"""A step of Adam moves log alpha by 0.1, or by more where all steps together would not come to
TRAVEL: from open to shut it is some 8."""

MULTIPLIER_RATE = 0.1
"""Nats that the multiplier rises in a step for a share that is off by 1."""

WARM_UP = 0.5
"""Share of the steps under gates in which the target grows to what is asked for."""


@dataclass(frozen=True, slots=True)
class Distillation:
    """How much of a teacher's knowledge counts beside the loss on tokens: `predictions` times the
    divergence from its predictions, and 1 - `predictions` times that from its states (lambda and
    1 - lambda in CoFi); `tokens` times the objective's own loss."""

    predictions: float = 0.5
    tokens: float = 1.0


@dataclass(frozen=True, slots=True)
class Gates:
    """What a student with gates is to lose: units of the plan, up to the target, in so many
    steps."""

    plan: Plan
    target: Target
    steps: int

    def wanted(self, number: int) -> float:
        """The share that is to be gone after so many steps."""
        return self.target.share * min(1.0, number / max(1.0, WARM_UP * self.steps))

    def by_group(self, flat: Any) -> Masks:
        """One vector of all units as an array for each group of each layer, and of the model."""
        sizes = self.plan.sizes
        ends = np.cumsum([count for own in sizes for count in own]).tolist()
        parts = iter(ops.split(flat, ends[:-1]) if len(ends) > 1 else [flat])
        return [[next(parts) for _ in own] for own in sizes]

    def on_host(self, flat: Any) -> Masks:
        return [[np.asarray(each) for each in own] for own in self.by_group(flat)]

    @property
    def groups(self) -> list[Group]:
        """The gates and the multiplier that drives them, at the start."""
        units = sum(sum(sizes) for sizes in self.plan.sizes)
        rate = max(GATE_RATE, TRAVEL / max(self.steps, 1))
        log_alphas, multiplier = np.full(units, START, np.float32), np.zeros((), np.float32)
        return [
            Group([log_alphas], keras.optimizers.Adam(rate), within=gates.bounded),
            Group([multiplier], keras.optimizers.SGD(MULTIPLIER_RATE), ascends=True),
        ]

    @property
    def places(self) -> list[int]:
        """For each weight of the masked model its place in the model; -1 for what masks make."""
        own, first = list(range(self.plan.outer)), self.plan.outer
        for layer in self.plan.layers:
            sources = layer.marked.sources
            own += [first + each if isinstance(each, int) else -1 for each in sources]
            own.append(-1)
            first += len(layer.layout.weights)
        return own


class Trainer:
    """A student in training for so many steps.

    With gates it learns these, too; with a teacher it learns from its predictions and states. Equal
    arguments and windows give equal weights on one machine."""

    def __init__(
        self,
        student: Model,
        task: Task,
        seed: int,
        teacher: Model | None = None,
        pruned: Gates | None = None,
        distillation: Distillation | None = None,
    ) -> None:
        self._task, self._seed = task, seed & 0x7FFFFFFF
        self._teacher, self._gates = teacher, pruned
        self._distillation = distillation or Distillation()
        kinds: list[Kind] = ["weight" if learns else "state" for learns in student.trainable]
        matrix = np.eye(task.model.d_model, dtype=np.float32)  # the last weight
        if student.channels is not None:
            matrix = matrix[student.channels]
        values = [*(np.asarray(value, np.float32) for value in student.values), matrix]
        shapes = tuple(value.shape for value in values)
        together = elementwise(task.optimizer) and not BACKENDS[task.training.backend].fuses
        self._packing = Packing(shapes, (*kinds, "weight"), together)
        weights = [np.asarray(variable) for variable in self._packing.variables(values)]
        groups = [Group(weights, make_optimizer(task.optimizer))]
        self._layers, self._places = student.layers, list(range(len(values)))
        if pruned is not None:
            self._layers, self._places = gated(pruned.plan, task), pruned.places
            groups += pruned.groups
        made = learner_of(task.training.backend)
        taught = [] if teacher is None else list(teacher.values)
        self._learner = made(self._loss, groups, self._packing.of("state", values), taught)
        self.share_gone = 0.0

    def train(self, windows: Any, first: int) -> float:
        """A step on each of windows [steps, batch, length]; `first` counts the steps before them.
        Gives the mean loss on tokens, in nats; raises Diverged where one is not finite."""
        made = []
        for number, batch in enumerate(windows, first):
            wanted = self._gates.wanted(number) if self._gates else 0.0
            seed = np.asarray([number, self._seed], self._learner.integer)
            batch = np.asarray(batch, np.int32)
            made.append(self._learner.step(batch, seed, np.float32(wanted)))
        losses = [float(loss) for loss, _ in made]
        self.share_gone = float(made[-1][1])
        for number, loss in enumerate(losses, first):
            if not math.isfinite(loss):
                raise Diverged(
                    f"the loss is {loss} at step {number}; a smaller learning rate may help"
                )
        return sum(losses) / len(losses)

    def _loss(
        self, values: Any, states: Any, taught: Any, windows: Any, seed: Any, wanted: Any
    ) -> tuple[Any, Any]:
        """See `learner.Function`: what a step gives is the loss on tokens, and the share of the
        target's measure that is gone."""
        *weights, matrix = self._packing.all(self._packing.tensors(values[0]), states)
        extra = share = ops.zeros(())
        channels: list[Any] = []
        if self._gates is not None:
            (log_alphas,), (multiplier,) = values[1:]
            masks, share = self._masks(log_alphas, seed)
            weights, channels = self._gates.plan.masked(weights, masks, ops), masks[-1]
            extra = price(share, wanted, multiplier)
        loss, tokens, updates = self._losses(weights, matrix, taught, windows, seed, channels)
        moved = {self._places[place]: value for place, value in updates.items()}
        kept = zip(self._packing.places("state"), states, strict=True)
        return loss + extra, ((tokens, share), [moved.get(at, state) for at, state in kept])

    def _masks(self, log_alphas: Any, seed: Any) -> tuple[Masks, Any]:
        """Masks that are drawn, and the expected share that is gone."""
        assert self._gates is not None
        draws = keras.random.uniform(log_alphas.shape, seed=Seeds(seed, GATE_STREAM))
        masks = self._gates.by_group(gates.drawn(log_alphas, draws))
        chances = self._gates.by_group(gates.chance(log_alphas))
        return masks, gone(self._gates.plan, self._gates.target, chances)

    def _losses(
        self, weights: Any, matrix: Any, taught: Any, windows: Any, seed: Any,
        channels: Sequence[Any],
    ) -> tuple[Any, Any, dict[int, Any]]:  # fmt: skip
        """What the gradient is of, the loss on tokens, and new values of states by place;
        `channels` holds the mask of the model's channels if there is one."""
        objective = OBJECTIVES[self._task.training.objective]
        batch, read = prepared(windows, weights[0].shape[0], seed, objective)
        outer = embedding_and_head(self._task.model)
        embedding, *positions, scale, shift = weights[: outer_count(self._layers, weights)]
        after: list[Any] = []
        x = outer.embed(batch.tokens, embedding, *positions)
        x, auxiliary = through(self._layers, weights, x, read, True, seed, after)
        for mask in channels:
            x, matrix = spread(x, mask, ops), matrix * mask[:, None]
        head = ModelHead((embedding, scale, shift), outer)
        tokens, count = weighed(objective.losses(x, batch, head), batch.counts)
        tokens = tokens if batch.counts is None else tokens / ops.maximum(count, 1e-6)
        loss = tokens + sum(auxiliary.losses) if auxiliary.losses else tokens
        if self._teacher is not None:
            predictions, states = self._lesson(taught, read, seed)
            said = prediction_loss(head.logits(x), predictions, batch.counts)
            shown = layer_loss(after, states, matrix)
            share = self._distillation.predictions
            loss = self._distillation.tokens * loss + share * said + (1 - share) * shown
        return loss, tokens, auxiliary.updates

    def _lesson(self, weights: Any, tokens: Any, seed: Any) -> tuple[Any, list[Any]]:
        """The teacher's logits, and its states after each layer."""
        assert self._teacher is not None
        layers, outer = self._teacher.layers, embedding_and_head(self._task.model)
        states: list[Any] = []
        embedding, *positions, scale, shift = weights[: outer_count(layers, weights)]
        x = outer.embed(ids_of(tokens), embedding, *positions)
        x, _ = through(layers, weights, x, tokens, False, seed, states)
        logits = ModelHead((embedding, scale, shift), outer).logits(x)
        return ops.stop_gradient(logits), [ops.stop_gradient(state) for state in states]

    def values(self) -> list[Array]:
        """The weights as they stand, without masks."""
        learned = self._packing.tensors(self._learner.values()[0])
        every = self._packing.all(learned, self._learner.states())
        return [np.asarray(each) for each in every[:-1]]

    def log_alphas(self) -> Array:
        """The gates of all units; see `Gates.by_group`."""
        made: Array = self._learner.values()[1][0]
        return made

    def kept(self) -> list[Array]:
        """All that the next steps depend on."""
        made: list[Array] = self._learner.kept()
        return made

    def restore(self, kept: Sequence[Array]) -> None:
        """Goes on where another trainer with the same arguments has kept this."""
        self._learner.restore(kept)
