"""From a trained model to a smaller one: gates are learned, units go, and what is left trains on.

Beside it stand models of other origins: the same units cut by the size of their weights or the use
of experts, and the smaller shape trained from scratch, with and without a teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from primitives.graph.build import Graph
from workers.data.tokens import TokenSplits, load_tokens
from workers.engines.learner import learner_of
from workers.model.shape import initial_model, shape_of
from workers.pruning import gates
from workers.pruning.checkpoint import Checkpoint
from workers.pruning.failure import Interrupted, PruningError, TooMuch
from workers.pruning.plan import Array, Masks, Plan, Shape, plan, smaller
from workers.pruning.rounding import magnitudes, rounded, usages
from workers.pruning.student import Model, scorer
from workers.pruning.table import Row, as_json, from_json, table
from workers.pruning.target import Target
from workers.pruning.trainer import Distillation, Gates, Trainer
from workers.spec.fit import window_length
from workers.spec.objectives import OBJECTIVES
from workers.spec.task import Task

CHUNK = 32
"""Steps whose windows are drawn at once. After each chunk a run can be kept, told of and ended."""

USAGE_BATCHES = 16
"""Batches of the training split on which the use of experts is counted."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a model is pruned.

    Attributes:
        target: what is to go.
        steps: optimiser steps, the first half with gates, the second with what is left.
        seed: what draws follow from.
        baselines: whether other ways to a model of this size are trained, too.
        whole_steps: steps that the whole model was trained for; the shape trained from scratch gets
            these and `steps`, so that both have seen as much text.
        distillation: what is learned of the whole model.
    """

    target: Target
    steps: int
    seed: int
    baselines: bool = True
    whole_steps: int = 0
    distillation: Distillation = field(default_factory=Distillation)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What came out: the smaller shape with its weights in order, and the table. `share_gone` is
    the share of the target's measure that went."""

    plan: Plan
    kept: Masks
    shape: Shape
    values: list[Array]
    rows: tuple[Row, ...]
    share_gone: float


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pruning is: the model in training, steps of all models, the last loss on tokens in
    nats, and under gates the share of the measure that is expected to be gone."""

    phase: str
    done: int
    total: int
    loss: float | None = None
    share_gone: float | None = None


Watch = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Way:
    """How one model of the table comes about: from this start, in so many steps."""

    name: str
    start: Model
    steps: int
    stream: int
    seed: int
    taught: bool = True


def prune(
    graph: Graph,
    task: Task,
    values: Sequence[Array],
    settings: Settings,
    checkpoint: Checkpoint | None = None,
    watch: Watch = lambda progress: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Pruned:
    """A smaller model from the weights of a trained one, in the model's order. It goes on from what
    `checkpoint` has of an earlier call with the same arguments, to the same weights.

    Raises PruningError where the objective remembers or the backend has no learner, TooMuch where
    the target cannot be reached, before anything is trained; Diverged where a loss is not finite;
    Interrupted, with all kept, soon after `stopped` says so."""
    kept = checkpoint or Checkpoint()
    return _Run(graph, task, values, settings, kept, watch, stopped).pruned()


class _Run:
    """One pruning under way."""

    def __init__(
        self, graph: Graph, task: Task, values: Sequence[Array], settings: Settings,
        checkpoint: Checkpoint, watch: Watch, stopped: Callable[[], bool],
    ) -> None:  # fmt: skip
        if OBJECTIVES[task.training.objective].remembers:
            raise PruningError(
                f"a model of objective {task.training.objective} remembers, which pruning cannot "
                "teach a smaller one; train it for next_token"
            )
        if task.model.share_layers:
            raise PruningError(
                "layers of this model share their weights, and pruning gives each layer a size of "
                "its own; train it with model.share_layers: false"
            )
        try:
            learner_of(task.training.backend)
        except ValueError as error:
            raise PruningError(str(error)) from None
        self.task = _in_float32(task)
        self.settings, self.checkpoint = settings, checkpoint
        self.watch, self.stopped = watch, stopped
        self.tokens: TokenSplits = load_tokens(task.data)
        self.plan = plan(graph, self.task, len(values[0]))
        graphs = tuple(layer.graph for layer in self.plan.layers)
        self.teacher = Model.of(graphs, self.task, values)
        nothing = [[np.zeros(size) for size in sizes] for sizes in self.plan.sizes]
        self._rounded(nothing)  # can it be reached?
        self.cuts = dict(self._other_cuts()) if settings.baselines else {}
        self.done, self.total = 0, settings.steps
        if settings.baselines:
            self.total += (len(self.cuts) + 2) * settings.steps + settings.whole_steps

    def _rounded(self, scores: Masks) -> Masks:
        target = self.settings.target
        return rounded(self.plan, scores, target.measure, target.most(self.plan))

    def _other_cuts(self) -> Iterator[tuple[str, Masks]]:
        """What the simple rules cut, where the target can be reached with all layers left."""
        rules = {"by magnitude": magnitudes(self.plan, self.teacher.values)}
        if any(group.kind == "experts" for layer in self.plan.layers for group in layer.groups):
            rng = np.random.default_rng([self.settings.seed, 7])
            _, loads = scorer(self.teacher, self.task)(self._windows(USAGE_BATCHES, rng))
            rules["least used experts"] = usages(self.plan, self.teacher.values, loads)
        for name, scores in rules.items():
            try:
                yield name, self._rounded(scores)
            except TooMuch:
                continue

    def pruned(self) -> Pruned:
        settings, target = self.settings, self.settings.target
        first = settings.steps // 2
        *values, log_alphas = self._under_gates(first)
        pruned = Gates(self.plan, target, first)
        kept = self._rounded(pruned.on_host(log_alphas))
        settled = pruned.on_host(gates.settled(log_alphas))
        soft = [
            [mask * stays for mask, stays in zip(own, keeps, strict=True)]
            for own, keeps in zip(settled, kept, strict=True)
        ]
        shape = smaller(self.plan, kept)
        start = self._cut(shape, values, soft)
        ways = [Way("pruned", start, settings.steps - first, 2, settings.seed)]
        if settings.baselines:
            ways += self._baselines(shape)
        models = {"whole": self.teacher}
        for way in ways:
            models[way.name] = way.start._replace(values=self._along(way))
        left = float(self.plan.cost(target.measure, kept, np.sum))
        share_gone = 1 - left / target.whole(self.plan)
        rows = self._rows(models, ways)
        return Pruned(self.plan, kept, shape, list(models["pruned"].values), rows, share_gone)

    def _under_gates(self, steps: int) -> list[Array]:
        """The whole model's weights after training under gates, and the gates."""

        def make() -> Trainer:
            pruned = Gates(self.plan, self.settings.target, steps)
            return Trainer(
                self.teacher, self.task, self.settings.seed, self.teacher, pruned,
                self.settings.distillation,
            )  # fmt: skip

        return self._part("gates", make, steps, stream=1)

    def _along(self, way: Way) -> list[Array]:
        """The weights of a model at the end of its way."""

        def make() -> Trainer:
            teacher = self.teacher if way.taught else None
            return Trainer(
                way.start, self.task, way.seed, teacher, distillation=self.settings.distillation
            )

        return self._part(way.name, make, way.steps, way.stream)

    def _baselines(self, shape: Shape) -> list[Way]:
        """Other ways to a model of this size, each with as many steps in all."""
        seed, steps = self.settings.seed, self.settings.steps
        streams = {"by magnitude": 3, "least used experts": 6}
        ways = [
            Way(name, self._cut(smaller(self.plan, kept), self.teacher.values, kept), steps,
                streams[name], seed + streams[name] - 2)
            for name, kept in self.cuts.items()
        ]  # fmt: skip
        fresh, whole = self._fresh(shape), steps + self.settings.whole_steps
        ways.append(Way("distilled from scratch", fresh, steps, 4, seed + 2))
        return [*ways, Way("from scratch", fresh, whole, 5, seed + 3, taught=False)]

    def _cut(self, shape: Shape, values: Sequence[Array], masks: Masks) -> Model:
        """The smaller model with what is left of these weights, which masks scale."""
        left = shape.weights(self.plan, self.plan.scaled(values, masks, np))
        small = [np.asarray(value, np.float32) for value in left]
        return Model.of(shape.graphs, self.task, small, shape.channels)

    def _fresh(self, shape: Shape) -> Model:
        """The smaller model with start values."""
        sizes = shape_of(shape.graphs, self.task.model, len(self.teacher.values[0]))
        values, at = initial_model(sizes, self.settings.seed + 4), self.plan.outer
        for each in shape.cuts:
            for number, places in each.tables.items():
                values[at + number] = places
            at += len(each.sources)
        return Model.of(shape.graphs, self.task, values, shape.channels)

    def _part(self, name: str, make: Callable[[], Trainer], steps: int, stream: int) -> list[Array]:
        """What a trainer has after so many steps: weights, and gates if it has them."""
        found = self.checkpoint.part(name)
        if found is None:
            found = self._trained(name, make(), steps, stream)
            self.checkpoint.finish(name, found)
        self.done += steps
        return found

    def _trained(self, name: str, trainer: Trainer, steps: int, stream: int) -> list[Array]:
        start, under_gates = self.checkpoint.go_on(name, trainer.restore), name == "gates"
        self.watch(Progress(name, self.done + start, self.total))
        for at in range(start, steps, CHUNK):
            rng = np.random.default_rng([self.settings.seed, stream, at])
            count = min(CHUNK, steps - at)
            loss = trainer.train(self._windows(count, rng), at)
            share = trainer.share_gone if under_gates else None
            self.watch(Progress(name, self.done + at + count, self.total, loss, share))
            if self.stopped():
                self.checkpoint.keep_now(name, at + count, trainer.kept)
                raise Interrupted(f"after {self.done + at + count} of {self.total} steps")
            self.checkpoint.keep(name, at + count, trainer.kept)
        return trainer.values() + ([trainer.log_alphas()] if under_gates else [])

    def _windows(self, count: int, rng: np.random.Generator) -> Array:
        """Windows [count, batch, length] of the training split."""
        objective = OBJECTIVES[self.task.training.objective]
        shape = (count, self.task.training.batch_size)
        return objective.draw(self.tokens.train, window_length(self.task), shape, rng)

    def _rows(self, models: dict[str, Model], ways: Sequence[Way]) -> tuple[Row, ...]:
        """The table, which is measured once."""
        if (rows := self.checkpoint.said(from_json)) is not None:
            return rows
        self.watch(Progress("scores", self.total, self.total))
        steps = {way.name: way.steps for way in ways}
        steps |= {"whole": self.settings.whole_steps, "pruned": self.settings.steps}
        rows = table(models, steps, self.task, self.tokens)
        self.checkpoint.say(as_json(rows))
        return rows


def _in_float32(task: Task) -> Task:
    """The task as it is trained here, whatever the whole model's products were computed in."""
    training = task.training.model_copy(update={"precision": "float32"})
    return task.model_copy(update={"training": training})
