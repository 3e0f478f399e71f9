"""The model around a block: tied token embedding, positions (`spec.positions`), the blocks with
weights of their own or one set for all, a final layer norm, logits.

Everything is a pure function of tokens and weights, written in keras.ops for any backend. Weights
are one flat list: those around the blocks, then each block's own, layer after layer. States, which
no gradient trains, stand among them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import keras
from keras import ops

from primitives.graph.build import Graph
from primitives.kernels.asking import foreseen_losses
from primitives.kernels.balancing import Run
from primitives.kernels.tasks import ids_of
from primitives.lowering.dispatch import Recorded
from primitives.lowering.layer import Lowered, lower
from primitives.lowering.weights import WeightSpec, weight_specs
from workers.machine.backends import BACKENDS, accelerators
from workers.model.ends import (
    EMBEDDING_AND_HEAD,
    EmbeddingAndHead,
    ModelHead,
    head,
    normed,
)
from workers.model.shape import layer_graphs, weight_owners
from workers.spec.fit import consistency, lowering_options
from workers.spec.objective import Batch, Objective
from workers.spec.objectives import OBJECTIVES
from workers.spec.task import Task

OBJECTIVE_STREAM = 1 << 30
"""Added to the second number of a seed for the objective's own draws. Those of the blocks differ in
the first number, so nothing that an objective hides follows from what a block draws."""


class Auxiliary(NamedTuple):
    """What a pass gives beside its value (see `balancing.Run`). That of one block has `updates` by
    the weight's name in the block, that of the model by its position among all weights, and so has
    `together`. `memory` is the state [batch, T, d_model] by which a block's contexts are
    remembered, of a model that of the last block; None where the objective does not remember.
    `loads` holds a tuple for each routed call: what the layers were made to record of it."""

    losses: tuple[Any, ...] = ()
    updates: dict[Any, Any] = {}  # noqa: RUF012  # never changed
    together: dict[Any, Any] = {}  # noqa: RUF012
    policies: tuple[Any, ...] = ()
    baselines: tuple[tuple[Any, Any], ...] = ()
    loads: tuple[tuple[Any, ...], ...] = ()
    memory: Any = None


Apply = Callable[[Any, Sequence[Any], Any, Any], tuple[Any, Auxiliary]]
"""(x [batch, T, d_model], weights, tokens [batch, T] with their tasks, random seed [2])
-> (y, auxiliary outputs). Pure. A block that does not use a run is given None for tokens and
seed."""


class Layer(NamedTuple):
    """A block's functions.

    Attributes:
        train: the block in training.
        score: the block in evaluation; the same object as `train` where they do not differ.
        specs: its weights, in the order in which the functions take them.
        uses_run: whether it reads tokens or seeds, or gives auxiliary outputs.
        gathered: for each weight, whether a pass reads no more than some of its rows.
        again: the number of the earlier layer whose weights it has; None where they are its own.
        consistency: how much the predictions of two passes of a step are to agree; 0 for one pass.
    """

    train: Apply
    score: Apply
    specs: tuple[WeightSpec, ...]
    uses_run: bool
    gathered: tuple[bool, ...]
    again: int | None = None
    consistency: float = 0.0


def model_layers(graph: Graph, task: Task, remembering: bool = False) -> tuple[Layer, ...]:
    """The model's blocks; layers with the same program share their functions. They give their
    memories where the task's objective remembers, or if `remembering`."""
    return layers_of(layer_graphs(graph, task.model), task, remembering)


def layers_of(
    graphs: Sequence[Graph], task: Task, remembering: bool = False, record: Recorded = "loads"
) -> tuple[Layer, ...]:
    """A block for each of these graphs; those with equal ones share their functions."""
    kinds, mixed_precision = accelerators(), mixed(task)
    backend = BACKENDS[task.training.backend]
    fused = backend.fuses or bool(kinds)
    flash = mixed_precision and bool(kinds & backend.flash)
    options = lowering_options(task)
    chosen = replace(options, mixed_precision=mixed_precision, fused=fused, flash=flash)
    remembers = OBJECTIVES[task.training.objective].remembers or remembering
    made: dict[str, Layer] = {}
    for each in graphs:
        if each.hash not in made:
            lowered = lower(each, task.model.d_model, chosen, record, with_memory=remembers)
            score = _pure(lowered, False, remembers)
            train = _pure(lowered, True, remembers) if lowered.runs else score
            specs = weight_specs(each, task.model.d_model)
            gathered = tuple(spec.name in lowered.gathered for spec in specs)
            made[each.hash] = Layer(
                train, score, specs, lowered.runs, gathered, consistency=consistency(each)
            )
    owners = weight_owners(graphs, task.model)
    return tuple(
        made[each.hash]._replace(again=None if owner == layer else owner)
        for layer, (each, owner) in enumerate(zip(graphs, owners, strict=True))
    )


def mixed(task: Task) -> bool:
    """Whether products are computed in bfloat16."""
    return task.training.precision == "mixed_bfloat16"


def wrapped(layers: Sequence[Layer], wrap: Callable[[Apply], Apply]) -> tuple[Layer, ...]:
    """The layers with each function wrapped, once."""
    known: dict[int, Apply] = {}
    for layer in layers:
        for apply in (layer.train, layer.score):
            if id(apply) not in known:
                known[id(apply)] = wrap(apply)
    return tuple(
        layer._replace(train=known[id(layer.train)], score=known[id(layer.score)])
        for layer in layers
    )


def _pure(lowered: Lowered, training: bool, remembers: bool) -> Apply:
    def apply(x: Any, weights: Sequence[Any], tokens: Any, seed: Any) -> tuple[Any, Auxiliary]:
        run = Run(training, tokens, Seeds(seed))
        made = lowered.function(x, weights, run)
        y, memory = made if remembers else (made, None)
        return y, Auxiliary(
            (*run.losses, *foreseen_losses(run)),
            run.updates,
            run.together,
            tuple(run.policies),
            tuple(run.baselines),
            () if training else (*run.loads, *run.choices),
            memory,
        )

    return apply


class Seeds(keras.random.SeedGenerator):  # type: ignore[misc]  # Keras has no types
    """Random seeds that follow from one, which may be a tensor: nothing is kept between passes.
    Different streams of one seed have no draw in common."""

    def __init__(self, seed: Any, stream: int = 0) -> None:
        self.seed, self.stream, self.drawn = seed, stream, 0

    def next(self, ordered: bool = True) -> Any:
        self.drawn += 1
        return self.seed + ops.convert_to_tensor([self.drawn << 16, self.stream], self.seed.dtype)


def outer_count(layers: Sequence[Layer], weights: Sequence[Any]) -> int:
    """How many of a model's weights, the first ones, are around its blocks."""
    return len(weights) - sum(len(layer.specs) for layer in with_weights(layers))


def with_weights(layers: Sequence[Layer]) -> list[Layer]:
    """The layers that have weights of their own."""
    return [layer for layer in layers if layer.again is None]


def logits(
    layers: Sequence[Layer], weights: Sequence[Any], tokens: Any, training: bool, seed: Any,
    outer: EmbeddingAndHead = EMBEDDING_AND_HEAD,
) -> tuple[Any, Auxiliary]:  # fmt: skip
    """Tokens [batch, T], with their tasks -> logits [batch, T, rows of the embedding]."""
    embedding, *positions, scale, shift = weights[: outer_count(layers, weights)]
    x = outer.embed(ids_of(tokens), embedding, *positions)
    x, auxiliary = through(layers, weights, x, tokens, training, seed)
    return head(x, embedding, scale, shift), auxiliary


def through(
    layers: Sequence[Layer], weights: Sequence[Any], x: Any, tokens: Any, training: bool, seed: Any,
    after: list[Any] | None = None,
) -> tuple[Any, Auxiliary]:  # fmt: skip
    """x [batch, T, d_model] through every block. What comes out of each is added to `after`."""
    next_one, auxiliary = outer_count(layers, weights), Auxiliary()
    starts: list[int] = []
    moved: defaultdict[int, list[Any]] = defaultdict(list)
    wanted: defaultdict[int, list[Any]] = defaultdict(list)
    for number, layer in enumerate(layers):
        first = next_one if layer.again is None else starts[layer.again]
        starts.append(first)
        next_one = max(next_one, first + len(layer.specs))
        own = weights[first : first + len(layer.specs)]
        apply = layer.train if training else layer.score
        if layer.uses_run:
            own_seed = seed + ops.convert_to_tensor([number << 24, 0], seed.dtype)
            x, more = apply(x, own, tokens, own_seed)
            auxiliary = _joined(auxiliary, more)
            for place, spec in enumerate(layer.specs, first):
                if spec.name in more.updates:
                    moved[place].append(more.updates[spec.name])
                if spec.name in more.together:
                    wanted[place].append(more.together[spec.name])
        else:
            x, more = apply(x, own, None, None)
        auxiliary = auxiliary._replace(memory=more.memory)
        if after is not None:
            after.append(x)
    # Layers that share a state each move it from where it was: it goes to the mean.
    updates, together = (
        {place: sum(each[1:], each[0]) / len(each) for place, each in found.items()}
        for found in (moved, wanted)
    )
    return x, auxiliary._replace(updates=updates, together=together)


def _joined(model: Auxiliary, block: Auxiliary) -> Auxiliary:
    """The model's outputs so far with those of a block, but for new values of states."""
    return Auxiliary(
        model.losses + tuple(block.losses),
        {},
        {},
        model.policies + tuple(block.policies),
        model.baselines + tuple(block.baselines),
        model.loads + tuple(block.loads),
    )


def prepared(windows: Any, rows: int, seed: Any, objective: Objective) -> tuple[Batch, Any]:
    """What the objective makes of windows [batch, T + lookahead], for an embedding of so many rows,
    and what blocks are told of its tokens: their ids with the tasks of their documents."""
    windows = ops.cast(windows, "int32")
    ids, random = ids_of(windows), Seeds(seed, OBJECTIVE_STREAM)
    batch = objective.batch(ids, rows - objective.extra_rows, random)
    return batch, batch.tokens + (windows - ids)[:, : batch.tokens.shape[1]]


def token_losses(
    layers: Sequence[Layer], weights: Sequence[Any], windows: Any, training: bool, seed: Any,
    objective: Objective, outer: EmbeddingAndHead = EMBEDDING_AND_HEAD,
) -> tuple[Any, Any, Auxiliary]:  # fmt: skip
    """Losses [batch, T], in nats, of windows [batch, T + lookahead] of tokens, and how much each
    counts (see `objectives.Batch`)."""
    batch, tokens = prepared(windows, weights[0].shape[0], seed, objective)
    made = passed(layers, weights, batch, tokens, training, seed, objective, outer)
    return made.losses, batch.counts, made.auxiliary


class Passed(NamedTuple):
    """What a pass over a batch gave: losses [batch, T] in nats, what it left beside them, what came
    out of the last block [batch, T, d_model], and the end of the model."""

    losses: Any
    auxiliary: Auxiliary
    x: Any
    head: ModelHead


def passed(
    layers: Sequence[Layer], weights: Sequence[Any], batch: Batch, tokens: Any, training: bool,
    seed: Any, objective: Objective, outer: EmbeddingAndHead,
) -> Passed:  # fmt: skip
    """One pass over a batch; `tokens` are what blocks are told, see `prepared`."""
    embedding, *positions, scale, shift = weights[: outer_count(layers, weights)]
    x = outer.embed(batch.tokens, embedding, *positions)
    x, auxiliary = through(layers, weights, x, tokens, training, seed)
    end = ModelHead((embedding, scale, shift), outer, auxiliary.memory)
    losses = objective.losses if training else objective.scoring
    return Passed(losses(x, batch, end), auxiliary, x, end)


def remembered(
    layers: Sequence[Layer], weights: Sequence[Any], windows: Any, outer: EmbeddingAndHead
) -> tuple[Any, Any, Any, Any]:
    """Of windows [batch, T + 1], in evaluation: the cross entropy and the logits [batch, T] of the
    next tokens, what the logits are products of, and what the last layer remembers contexts by
    [batch, T, d_model]. The layers must be `remembering`."""
    embedding, *positions, scale, shift = weights[: outer_count(layers, weights)]
    windows = ops.cast(windows, "int32")
    tokens, ids, seed = windows[:, :-1], ids_of(windows), ops.zeros(2, "int32")
    x = outer.embed(ids[:, :-1], embedding, *positions)
    x, auxiliary = through(layers, weights, x, tokens, False, seed)
    losses, right = outer.scored_of(x, embedding, scale, shift, ids[:, 1:])
    return losses, right, normed(x, scale, shift), auxiliary.memory


def predictions(
    layers: Sequence[Layer], weights: Sequence[Any], windows: Any, seed: Any,
    objective: Objective, outer: EmbeddingAndHead = EMBEDDING_AND_HEAD,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """(logits [batch, T, rows of the embedding], targets [batch, T], how much each position counts)
    in evaluation mode."""
    batch, tokens = prepared(windows, weights[0].shape[0], seed, objective)
    made, _ = logits(layers, weights, tokens, False, seed, outer)
    return made, batch.targets, batch.counts


def token_choices(
    layers: Sequence[Layer], weights: Sequence[Any], windows: Any, objective: Objective,
    outer: EmbeddingAndHead = EMBEDDING_AND_HEAD,
) -> list[Any]:  # fmt: skip
    """The tokens [batch, T] that the model reads in windows [batch, length], and the experts and
    gates [batch, T, entries] of each routed call, in evaluation mode. The layers must record
    choices."""
    seed = ops.zeros(2, "int32")
    batch, tokens = prepared(windows, weights[0].shape[0], seed, objective)
    _, auxiliary = logits(layers, weights, tokens, False, seed, outer)
    return [batch.tokens, *(part for pair in auxiliary.loads for part in pair)]


def scoring_loss(
    layers: Sequence[Layer], weights: Sequence[Any], windows: Any, seed: Any,
    objective: Objective, outer: EmbeddingAndHead = EMBEDDING_AND_HEAD,
) -> tuple[Any, Any, tuple[tuple[Any, Any], ...]]:  # fmt: skip
    """(loss, its weight, loads of each routed call in order) in evaluation mode. A slice's score is
    the sum of its batches' losses over that of their weights: the mean over all positions that
    count. Where all count the same, a batch gives its mean and the weight 1."""
    losses, counts, auxiliary = token_losses(
        layers, weights, windows, False, seed, objective, outer
    )
    return *weighed(losses, counts), auxiliary.loads


def weighed(losses: Any, counts: Any) -> tuple[Any, Any]:
    """The losses' sum by weight, and the sum of weights."""
    if counts is None:
        return ops.mean(losses), ops.ones(())
    return ops.sum(losses * counts), ops.sum(counts)
