"""What a model has around its blocks: tokens to vectors, and vectors to logits and losses.

All are pure functions, written in keras.ops for any backend.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from keras import ops

from primitives.kernels.dense import centred
from primitives.kernels.positions import with_sinusoids
from workers.spec.positions import Kind
from workers.spec.task import ModelSpec

EPSILON = 1e-6


def embed(tokens: Any, embedding: Any, positions: Any) -> Any:
    """Tokens [batch, T] -> x [batch, T, d_model], where positions [T, d_model] are learned."""
    return ops.take(embedding, tokens, axis=0) + positions


def embed_with_sinusoids(tokens: Any, embedding: Any) -> Any:
    """Tokens [batch, T] -> x [batch, T, d_model], with waves of their positions."""
    return with_sinusoids(ops.take(embedding, tokens, axis=0))


def embed_alone(tokens: Any, embedding: Any) -> Any:
    """Tokens [batch, T] -> x [batch, T, d_model], which says nothing of positions."""
    return ops.take(embedding, tokens, axis=0)


def normed(x: Any, scale: Any, shift: Any) -> Any:
    """The final layer norm of x [batch, T, d_model]."""
    x = centred(x)
    x = x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + EPSILON)
    return x * scale + shift


def head(x: Any, embedding: Any, scale: Any, shift: Any) -> Any:
    """x [batch, T, d_model] -> logits [batch, T, rows of the embedding]."""
    return ops.matmul(normed(x, scale, shift), ops.transpose(embedding))


def losses_of(x: Any, embedding: Any, scale: Any, shift: Any, targets: Any) -> Any:
    """x [batch, T, d_model] and targets [batch, T] -> losses [batch, T] in nats."""
    scores = head(x, embedding, scale, shift)
    return ops.sparse_categorical_crossentropy(targets, scores, from_logits=True)


def scored_of(x: Any, embedding: Any, scale: Any, shift: Any, targets: Any) -> tuple[Any, Any]:
    """The same losses, and the targets' logits [batch, T]."""
    x = normed(x, scale, shift)
    scores = ops.matmul(x, ops.transpose(embedding))
    losses = ops.sparse_categorical_crossentropy(targets, scores, from_logits=True)
    return losses, ops.sum(x * ops.take(embedding, targets, axis=0), axis=-1)


class EmbeddingAndHead(NamedTuple):
    """What a model has outside its blocks: the same functions for all candidates of a task.

    Attributes:
        embed: (tokens [batch, T], the embedding, positions [T, d_model] if they are learned)
            -> x [batch, T, d_model].
        losses_of: the losses of the targets, see the function of that name.
        scored_of: those with the targets' logits, see the function of that name.
    """

    embed: Callable[..., Any] = embed
    losses_of: Callable[..., Any] = losses_of
    scored_of: Callable[..., Any] = scored_of


EMBEDDING_AND_HEAD = EmbeddingAndHead()
"""Where positions are learned."""

_EMBED: dict[Kind, Callable[..., Any]] = {
    "learned": embed,
    "sinusoidal": embed_with_sinusoids,
    "rotary": embed_alone,  # the blocks rotate what they multiply
    "none": embed_alone,
}


def embedding_and_head(spec: ModelSpec) -> EmbeddingAndHead:
    """What a model of this kind has outside its blocks."""
    return EmbeddingAndHead(_EMBED[spec.positions])


@dataclass(frozen=True, slots=True)
class ModelHead:
    """The end of a model for its objective; see `objectives.Head`."""

    weights: tuple[Any, Any, Any]
    outer: EmbeddingAndHead
    memory: Any = None

    def logits(self, x: Any) -> Any:
        return head(x, *self.weights)

    def losses(self, x: Any, targets: Any) -> Any:
        return self.outer.losses_of(x, *self.weights, targets)

    def scored(self, x: Any, targets: Any) -> tuple[Any, Any]:
        made: tuple[Any, Any] = self.outer.scored_of(x, *self.weights, targets)
        return made
