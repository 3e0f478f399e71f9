"""From a trained model to a smaller one: gates are learned, units go, and what is left trains on.

Beside it stand models of other origins: the same units cut by the size of their weights, and the
smaller shape trained from scratch, with and without a teacher.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from primitives.graph.build import Graph
from primitives.lowering.cost import Cost, layers_cost
from workers.data.tokens import TokenSplits, load_tokens
from workers.machine.progress import Tell, silent
from workers.model.model import initial_model, shape_of
from workers.pruning.failure import PruningError, TooMuch
from workers.pruning.plan import Array, Masks, Plan, Shape, plan, smaller
from workers.pruning.rounding import magnitudes, rounded
from workers.pruning.speed import BATCHES, tokens_per_second
from workers.pruning.target import Target
from workers.pruning.trainer import Distillation, Model, Trainer, score
from workers.spec.fit import lowering_options, window_length
from workers.spec.objectives import OBJECTIVES
from workers.spec.positions import POSITIONS
from workers.spec.task import Task

CHUNK = 64
"""Steps whose windows are drawn at once."""


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
class Row:
    """A model of the table: its name, cost, steps of training, losses in bits a byte, and tokens a
    second of a forward pass with one sequence and with many (see `speed.BATCHES`)."""

    name: str
    layers: int
    cost: Cost
    steps: int
    val_bpb: float
    test_bpb: float
    speed: tuple[float, ...]


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


def prune(
    graph: Graph, task: Task, values: Sequence[Array], settings: Settings, tell: Tell = silent
) -> Pruned:
    """A smaller model from the weights of a trained one, in the model's order. `tell` counts steps.

    Raises PruningError where the objective remembers, TooMuch where the target cannot be reached,
    before anything is trained, and Diverged where a loss is not finite."""
    return _Run(graph, task, values, settings, tell).pruned()


class _Run:
    """One pruning under way."""

    def __init__(
        self, graph: Graph, task: Task, values: Sequence[Array], settings: Settings, tell: Tell
    ) -> None:
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
        self.task = _on_tensorflow(task)
        self.settings, self.tell = settings, tell
        self.tokens: TokenSplits = load_tokens(task.data)
        self.plan = plan(graph, self.task, len(values[0]))
        graphs = tuple(layer.graph for layer in self.plan.layers)
        self.teacher = Model.of(graphs, self.task, values)
        self.done, self.total = 0, settings.steps
        if settings.baselines:
            self.total = 4 * settings.steps + settings.whole_steps
        most = settings.target.most(self.plan)
        rounded(self.plan, self._least(), settings.target.measure, most)  # can it be reached?

    def _least(self) -> Masks:
        return [[np.zeros(size) for size in sizes] for sizes in self.plan.sizes]

    def pruned(self) -> Pruned:
        settings, target = self.settings, self.settings.target
        first = settings.steps // 2
        trainer = Trainer(
            self.teacher, self.task, settings.seed, self.teacher, (self.plan, target, first),
            settings.distillation,
        )  # fmt: skip
        self._train(trainer, first, stream=1)
        kept = rounded(self.plan, trainer.log_alphas(), target.measure, target.most(self.plan))
        soft = [
            [mask * stays for mask, stays in zip(own, keeps, strict=True)]
            for own, keeps in zip(trainer.settled(), kept, strict=True)
        ]
        shape = smaller(self.plan, kept)
        start = self._cut(shape, trainer.values(), soft)
        model = self._further(start, settings.steps - first, stream=2, seed=settings.seed)
        models = {"whole": self.teacher, "pruned": model}
        steps = {"whole": settings.whole_steps, "pruned": settings.steps}
        if settings.baselines:
            self._add_baselines(models, steps, shape)
        rows = self._rows(models, steps)
        left = float(self.plan.inside(target.measure, kept, np.sum))
        whole = target.whole(self.plan)
        share_gone = 1 - (left + self.plan.outside(target.measure)) / whole
        return Pruned(self.plan, kept, shape, list(model.values), rows, share_gone)

    def _add_baselines(self, models: dict[str, Model], steps: dict[str, int], shape: Shape) -> None:
        """Other ways to a model of this size, each with as many steps in all."""
        settings, target = self.settings, self.settings.target
        scores = magnitudes(self.plan, self.teacher.values)
        try:
            kept = rounded(self.plan, scores, target.measure, target.most(self.plan))
        except TooMuch:  # with all layers left, there is too much
            self.done += settings.steps
        else:
            start = self._cut(smaller(self.plan, kept), self.teacher.values, kept)
            models["by magnitude"] = self._further(start, settings.steps, 3, settings.seed + 1)
            steps["by magnitude"] = settings.steps
        fresh = self._fresh(shape)
        models["distilled from scratch"] = self._further(
            fresh, settings.steps, 4, settings.seed + 2
        )
        steps["distilled from scratch"] = settings.steps
        trainer = Trainer(fresh, self.task, settings.seed + 3)
        whole = settings.steps + settings.whole_steps
        self._train(trainer, whole, stream=5)
        models["from scratch"] = fresh._replace(values=trainer.values())
        steps["from scratch"] = whole

    def _cut(self, shape: Shape, values: Sequence[Array], masks: Masks) -> Model:
        """The smaller model with what is left of these weights, which masks scale."""
        marked = self.plan.masked(values, masks, np.reshape)
        plain, at = list(marked[: self.plan.outer]), self.plan.outer
        for layer in self.plan.layers:
            count = len(layer.layout.weights)
            plain += marked[at : at + count]
            at += count + 1  # behind them stands the layer's own mask
        left = [np.asarray(value, np.float32) for value in shape.weights(self.plan, plain)]
        return Model.of(shape.graphs, self.task, left)

    def _fresh(self, shape: Shape) -> Model:
        """The smaller model with start values."""
        sizes = shape_of(shape.graphs, self.task.model, len(self.teacher.values[0]))
        values, at = initial_model(sizes, self.settings.seed + 4), self.plan.outer
        for each in shape.cuts:
            for number, table in each.tables.items():
                values[at + number] = table
            at += len(each.sources)
        return Model.of(shape.graphs, self.task, values)

    def _further(self, model: Model, steps: int, stream: int, seed: int) -> Model:
        """The model after so many steps with the whole one as its teacher."""
        trainer = Trainer(
            model, self.task, seed, self.teacher, distillation=self.settings.distillation
        )
        self._train(trainer, steps, stream)
        return model._replace(values=trainer.values())

    def _train(self, trainer: Trainer, steps: int, stream: int) -> None:
        rng = np.random.default_rng([self.settings.seed, stream])
        objective, batch = OBJECTIVES[self.task.training.objective], self.task.training.batch_size
        for start in range(0, steps, CHUNK):
            shape = (min(CHUNK, steps - start), batch)
            drawn = objective.draw(self.tokens.train, window_length(self.task), shape, rng)
            for number, windows in enumerate(drawn, start):
                trainer.train(windows, number)
                self.done += 1
                self.tell(self.done, self.total)

    def _rows(self, models: dict[str, Model], steps: dict[str, int]) -> tuple[Row, ...]:
        timed = [tokens_per_second(models, self.task, batch) for batch in BATCHES]
        return tuple(
            Row(
                name,
                len(model.layers),
                self._cost(model),
                steps[name],
                self._bits(model, "validation"),
                self._bits(model, "test"),
                tuple(each[name] for each in timed),
            )
            for name, model in models.items()
        )

    def _cost(self, model: Model) -> Cost:
        rows, width = len(model.values[0]), self.task.model.d_model
        learned = POSITIONS[self.task.model.positions].bounded
        return layers_cost(model.graphs, width, rows, lowering_options(self.task), learned)

    def _bits(self, model: Model, split: str) -> float:
        """Bits a byte on a split's fixed slice, as candidates are scored."""
        training, length = self.task.training, window_length(self.task)
        objective = OBJECTIVES[training.objective]
        shape = (training.eval_batches, training.batch_size)
        windows = objective.fixed(getattr(self.tokens, split), length, shape)
        loss = score(model, self.task, windows)
        return loss / math.log(2) / self.tokens.bytes_per_token[split]


def _on_tensorflow(task: Task) -> Task:
    """The task as it is trained here: on TensorFlow, in float32."""
    training = task.training.model_copy(update={"backend": "tensorflow", "precision": "float32"})
    return task.model_copy(update={"training": training})
