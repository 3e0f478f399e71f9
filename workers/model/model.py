"""The model around a block: tied token embedding, learned positions, the blocks with weights of
their own, a final layer norm, logits.

Everything is a pure function of tokens and weights, written in keras.ops for any backend. Weights
are one flat list: those around the blocks, then each block's own, layer after layer. States, which
no gradient trains, stand among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from primitives.graph.build import Graph
from primitives.kernels.balancing import Run
from primitives.kernels.dense import centred
from primitives.lowering.cost import program_layers
from primitives.lowering.layer import Array, Lowered, initial_weights, lower
from primitives.lowering.weights import WeightSpec, weight_specs
from primitives.programs.seeds import other_graph
from workers.machine.devices import accelerators
from workers.spec.fit import lowering_options
from workers.spec.task import ModelSpec, Task

OUTER = ("embedding", "positions", "norm_scale", "norm_shift")
"""Names of the weights around the blocks, in order; those of block 0, block 1, ... follow."""

EPSILON = 1e-6

MASKED_SHARE = 0.15
"""Of positions that the masked objective hides (Devlin et al. 2019)."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Names and shapes of a model's weights, in order; `blocks` holds those of each layer."""

    spec: ModelSpec
    vocabulary: int
    blocks: tuple[tuple[WeightSpec, ...], ...]

    @property
    def names(self) -> tuple[str, ...]:
        inside = (f"blocks/{i}/{w.name}" for i, block in enumerate(self.blocks) for w in block)
        return (*OUTER, *inside)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        width = self.spec.d_model
        outer = ((self.vocabulary, width), (self.spec.sequence_length, width), (width,), (width,))
        return (*outer, *(weight.shape for block in self.blocks for weight in block))

    @property
    def trainable(self) -> tuple[bool, ...]:
        return (*(True for _ in OUTER), *(w.trainable for block in self.blocks for w in block))


def model_shape(graph: Graph, spec: ModelSpec, vocabulary: int) -> ModelShape:
    """`vocabulary` counts the rows of the embedding."""
    graphs = layer_graphs(graph, spec)
    return ModelShape(spec, vocabulary, tuple(weight_specs(g, spec.d_model) for g in graphs))


def layer_graphs(graph: Graph, spec: ModelSpec) -> tuple[Graph, ...]:
    """The program of each layer: the candidate's, or the other one."""
    own = program_layers(graph.every, spec.layers)
    if len(own) == spec.layers:
        return (graph,) * spec.layers
    other = other_graph(spec.other)
    return tuple(graph if layer in own else other for layer in range(spec.layers))


def embedding_rows(task: Task, vocabulary: int) -> int:
    """A row for each token, and one for the hidden ones of a masked objective."""
    return vocabulary + (task.training.objective == "masked")


def initial_model(shape: ModelShape, seed: int) -> list[Array]:
    """Start values of every weight, in order, the same on every machine and backend."""
    rng = np.random.default_rng(seed)
    vocabulary, width = shape.shapes[0]
    scale = np.float32(width**-0.5)
    return [
        rng.standard_normal((vocabulary, width), np.float32) * scale,
        rng.standard_normal(shape.shapes[1], np.float32) * scale,
        np.ones(width, np.float32),
        np.zeros(width, np.float32),
        *initial_weights([weight for block in shape.blocks for weight in block], rng),
    ]


class Auxiliary(NamedTuple):
    """What a pass left beside its value, of one block (see `balancing.Run`) or of all of them,
    where `updates` are by the position of the weight."""

    losses: tuple[Any, ...] = ()
    updates: dict[Any, Any] = {}  # noqa: RUF012  # never changed
    policies: tuple[Any, ...] = ()
    loads: tuple[tuple[Any, Any], ...] = ()


Apply = Callable[[Any, Sequence[Any], Any, Any], tuple[Any, Auxiliary]]
"""(x, weights, tokens, random seed [2]) -> (y, what it left), pure."""


class Layer(NamedTuple):
    """A block in training and in evaluation: one function where they do not differ."""

    train: Apply
    score: Apply
    specs: tuple[WeightSpec, ...]
    runs: bool
    gathered: tuple[bool, ...]


def model_layers(graph: Graph, task: Task) -> tuple[Layer, ...]:
    """The model's blocks; layers with the same program share their functions. `gathered` says
    of each weight whether a pass reads only some of its rows."""
    kinds, narrow = accelerators(), mixed(task)
    jax = keras.backend.backend() == "jax"
    flash = narrow and jax and "gpu" in kinds
    chosen = replace(
        lowering_options(task), mixed_precision=narrow, fused=jax or bool(kinds), flash=flash
    )
    made: dict[str, Layer] = {}
    graphs = layer_graphs(graph, task.model)
    for each in graphs:
        if each.hash not in made:
            lowered = lower(each, task.model.d_model, chosen)
            score = _pure(lowered, training=False)
            train = _pure(lowered, training=True) if lowered.runs else score
            specs = weight_specs(each, task.model.d_model)
            gathered = tuple(spec.name in lowered.gathered for spec in specs)
            made[each.hash] = Layer(train, score, specs, lowered.runs, gathered)
    return tuple(made[each.hash] for each in graphs)


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


def _pure(lowered: Lowered, training: bool) -> Apply:
    def apply(x: Any, weights: Sequence[Any], tokens: Any, seed: Any) -> tuple[Any, Auxiliary]:
        run = Run(training, tokens, Seeds(seed))
        y = lowered.function(x, weights, run)
        loads = () if training else tuple(run.loads)
        return y, Auxiliary(tuple(run.losses), run.updates, tuple(run.policies), loads)

    return apply


class Seeds(keras.random.SeedGenerator):
    """Random seeds that follow from one, which may be a tensor: nothing is kept between passes."""

    def __init__(self, seed: Any) -> None:
        self.seed, self.drawn = seed, 0

    def next(self, ordered: bool = True) -> Any:
        self.drawn += 1
        return self.seed + ops.convert_to_tensor([self.drawn << 16, 0], self.seed.dtype)


def embed(tokens: Any, embedding: Any, positions: Any) -> Any:
    """Tokens [batch, T] -> x [batch, T, d_model]."""
    return ops.take(embedding, tokens, axis=0) + positions


def head(x: Any, embedding: Any, scale: Any, shift: Any) -> Any:
    """x [batch, T, d_model] -> logits [batch, T, rows of the embedding]."""
    x = centred(x)
    x = x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + EPSILON)
    return ops.matmul(x * scale + shift, ops.transpose(embedding))


def losses_of(x: Any, embedding: Any, scale: Any, shift: Any, targets: Any) -> Any:
    """x [batch, T, d_model] and targets [batch, T] -> losses [batch, T] in nats."""
    scores = head(x, embedding, scale, shift)
    return ops.sparse_categorical_crossentropy(targets, scores, from_logits=True)


class EmbeddingAndHead(NamedTuple):
    """What a model has around its blocks: the same for all candidates of a task."""

    embed: Callable[..., Any] = embed
    losses_of: Callable[..., Any] = losses_of


EMBEDDING_AND_HEAD = EmbeddingAndHead()


def logits(
    layers: Sequence[Layer], weights: Sequence[Any], tokens: Any, training: bool, seed: Any
) -> tuple[Any, Auxiliary]:
    """Tokens [batch, T] -> logits [batch, T, rows of the embedding]."""
    embedding, positions, scale, shift = weights[: len(OUTER)]
    x, left = _through(layers, weights, embed(tokens, embedding, positions), tokens, training, seed)
    return head(x, embedding, scale, shift), left


def _through(
    layers: Sequence[Layer], weights: Sequence[Any], x: Any, tokens: Any, training: bool, seed: Any
) -> tuple[Any, Auxiliary]:
    """x [batch, T, d_model] through every block."""
    first, left = len(OUTER), Auxiliary()
    for number, layer in enumerate(layers):
        own = weights[first : first + len(layer.specs)]
        apply = layer.train if training else layer.score
        if layer.runs:
            own_seed = seed + ops.convert_to_tensor([number << 24, 0], seed.dtype)
            x, also = apply(x, own, tokens, own_seed)
            left = _joined(left, also, layer.specs, first)
        else:
            x, _ = apply(x, own, None, None)
        first += len(layer.specs)
    return x, left


def _joined(left: Auxiliary, also: Auxiliary, specs: Sequence[WeightSpec], first: int) -> Auxiliary:
    places = {spec.name: first + index for index, spec in enumerate(specs)}
    updates = {places[name]: value for name, value in also.updates.items()}
    return Auxiliary(
        left.losses + tuple(also.losses),
        {**left.updates, **updates},
        left.policies + tuple(also.policies),
        left.loads + tuple(also.loads),
    )


def token_losses(
    layers: Sequence[Layer], weights: Sequence[Any], windows: Any, training: bool, seed: Any,
    objective: str, around: EmbeddingAndHead = EMBEDDING_AND_HEAD,
) -> tuple[Any, Any, Auxiliary]:  # fmt: skip
    """Losses [batch, T], in nats, of windows [batch, T + 1] of tokens, and how much each counts:
    all the same (None), where they predict the next token, or those that a masked objective
    hides."""
    windows = ops.cast(windows, "int32")
    tokens, targets = windows[:, :-1], windows[:, 1:]
    counts = None
    if objective == "masked":
        targets = tokens
        hidden = keras.random.uniform(ops.shape(tokens), seed=Seeds(seed)) < MASKED_SHARE
        tokens = ops.where(hidden, weights[0].shape[0] - 1, tokens)
        counts = ops.cast(hidden, "float32")
    embedding, positions, scale, shift = weights[: len(OUTER)]
    x = around.embed(tokens, embedding, positions)
    x, left = _through(layers, weights, x, tokens, training, seed)
    return around.losses_of(x, embedding, scale, shift, targets), counts, left


def training_loss(
    layers: Sequence[Layer], weights: Sequence[Any], windows: Any, seed: Any, objective: str,
    around: EmbeddingAndHead = EMBEDDING_AND_HEAD,
) -> tuple[Any, Any, dict[int, Any]]:  # fmt: skip
    """(what the gradient is of, mean token loss, new values of states by position of the weight).
    Auxiliary losses count here alone, and so does what REINFORCE adds: the reward of a sampled
    expert is the negative loss of the token, against the batch's mean."""
    losses, counts, left = token_losses(layers, weights, windows, True, seed, objective, around)
    loss = total = _mean(losses, counts)
    for extra in left.losses:
        total = total + extra
    for chances in left.policies:
        better = ops.stop_gradient(loss - losses)
        total = total - ops.mean(chances * better)
    return total, loss, left.updates


def scoring_loss(
    layers: Sequence[Layer], weights: Sequence[Any], windows: Any, seed: Any, objective: str,
    around: EmbeddingAndHead = EMBEDDING_AND_HEAD,
) -> tuple[Any, tuple[tuple[Any, Any], ...]]:  # fmt: skip
    """(mean token loss, loads of each routed call in order) in evaluation mode."""
    losses, counts, left = token_losses(layers, weights, windows, False, seed, objective, around)
    return _mean(losses, counts), left.loads


def _mean(losses: Any, counts: Any) -> Any:
    return ops.mean(losses) if counts is None else ops.sum(losses * counts) / ops.sum(counts)
