"""The seed programs' models as a practised Keras user writes them, and their training step.

Heads are one reshaped projection, convolutions run over all heads' channels at once (as shifted
products under XLA, where Keras' layer takes ten times as long on a GPU), the update is Keras' own
on one variable a weight, and many steps run in one device call: nothing is left out that a careful
person would do by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from workers.engines.optimizer import make_optimizer
from workers.spec.task import Task

HEADS = 8


class Shifted(layers.Layer):
    """A 3x1 depthwise convolution, tap by tap."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.kernel = self.add_weight(shape=(3, shape[-1]), initializer="glorot_uniform")

    def call(self, x: Any) -> Any:
        length = x.shape[1] - 2
        return sum(x[:, tap : tap + length] * self.kernel[tap] for tap in range(3))


class Attention(layers.Layer):
    """Causal self-attention; `dconv` puts a 3x1 depthwise convolution after each projection, and
    `query_from_key` makes each head's queries from its keys."""

    def __init__(self, width: int, dconv: bool, query_from_key: bool, shifted: bool) -> None:
        super().__init__()
        self.head = width // HEADS
        self.projections = [layers.Dense(width, use_bias=False) for _ in range(3 - query_from_key)]
        self.convolutions = [
            Shifted() if shifted else layers.DepthwiseConv1D(3, use_bias=False)
            for _ in self.projections
            if dconv
        ]
        self.query = (
            layers.EinsumDense("bhtc,hcd->bhtd", (HEADS, None, self.head))
            if query_from_key
            else None
        )
        self.out = layers.Dense(width, use_bias=False)

    def call(self, x: Any) -> Any:
        made = [projection(x) for projection in self.projections]
        if self.convolutions:
            made = [
                convolution(ops.pad(one, [[0, 0], [2, 0], [0, 0]]))
                for one, convolution in zip(made, self.convolutions, strict=True)
            ]
        batch, length, width = x.shape
        split = (batch, length, HEADS, self.head)
        heads = [ops.transpose(ops.reshape(one, split), (0, 2, 1, 3)) for one in made]
        if self.query is not None:
            heads = [self.query(heads[0]), *heads]
        query, key, value = heads
        scores = ops.matmul(query * self.head**-0.5, ops.transpose(key, (0, 1, 3, 2)))
        visible = ops.tril(ops.ones((length, length), dtype="bool"))
        weights = ops.softmax(ops.where(visible, scores, -1e30), axis=-1)
        mixed = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))
        return self.out(ops.reshape(mixed, (batch, length, width)))


class RMSNorm(layers.Layer):
    def build(self, shape: tuple[int, ...]) -> None:
        self.scale = self.add_weight(shape=shape[-1:], initializer="ones")

    def call(self, x: Any) -> Any:
        return x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + 1e-6) * self.scale


class FeedForward(layers.Layer):
    def __init__(self, width: int, activation: Callable[[Any], Any], gated: bool) -> None:
        super().__init__()
        inner = 3 * width if gated else 4 * width
        self.wide = layers.Dense(inner, use_bias=False)
        self.gate = layers.Dense(inner, use_bias=False) if gated else None
        self.narrow = layers.Dense(width, use_bias=False)
        self.activation = activation

    def call(self, x: Any) -> Any:
        if self.gate is None:
            return self.narrow(self.activation(self.wide(x)))
        return self.narrow(self.activation(self.gate(x)) * self.wide(x))


class Block(layers.Layer):
    def __init__(self, name: str, width: int, shifted: bool) -> None:
        super().__init__()
        primer = name.startswith("primer")
        plus = name == "transformer_pp"
        activation = {"transformer": ops.relu, "transformer_gelu": ops.gelu}.get(name, ops.silu)
        self.norms = [RMSNorm() if plus else layers.LayerNormalization(epsilon=1e-6) for _ in "12"]
        self.attention = Attention(width, primer, name == "primer", shifted)
        self.feed = FeedForward(
            width, (lambda x: ops.square(ops.relu(x))) if primer else activation, plus
        )
        self.norm_after = name == "primer"

    def call(self, x: Any) -> Any:
        x = x + self.attention(self.norms[0](x))
        if self.norm_after:
            return x + self.norms[1](self.feed(x))
        return x + self.feed(self.norms[1](x))


class LanguageModel(keras.Model):
    def __init__(self, name: str, task: Task, vocabulary: int) -> None:
        super().__init__()
        width, length = task.model.d_model, task.model.sequence_length
        shifted = task.training.jit == "on" or task.training.backend == "jax"
        self.embedding = layers.Embedding(vocabulary, width)
        self.positions = layers.Embedding(length, width)
        self.blocks = [Block(name, width, shifted) for _ in range(task.model.layers)]
        self.norm = layers.LayerNormalization(epsilon=1e-6)
        self.length = length

    def call(self, tokens: Any) -> Any:
        x = self.embedding(tokens) + self.positions(ops.arange(self.length))
        for block in self.blocks:
            x = block(x)
        return ops.matmul(self.norm(x), ops.transpose(self.embedding.embeddings))


def token_loss(logits: Any, targets: Any) -> Any:
    logits = ops.cast(logits, "float32")
    return ops.mean(ops.sparse_categorical_crossentropy(targets, logits, from_logits=True))


def handwritten_engine(name: str, task: Task, vocabulary: int = 256) -> Any:
    """The same calls as `workers.engines.engine.Engine`, on the model above and Keras' backend."""
    model = LanguageModel(name, task, vocabulary)
    model(np.zeros((task.training.batch_size, task.model.sequence_length), np.int32))
    optimizer = make_optimizer(task.optimizer)
    optimizer.build(model.trainable_variables)
    chosen = JaxLoop if keras.backend.backend() == "jax" else TensorFlowLoop
    return chosen(model, optimizer, task)


class TensorFlowLoop:
    def __init__(self, model: Any, optimizer: Any, task: Task) -> None:
        import tensorflow as tf

        def step(windows: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = token_loss(model(windows[:, :-1]), windows[:, 1:])
            variables = model.trainable_variables
            optimizer.apply(tape.gradient(loss, variables), variables)
            return loss

        if task.training.jit == "on":
            step = tf.function(step, autograph=False, jit_compile=True)

        def many(windows: Any) -> Any:
            def body(index: Any, total: Any) -> Any:
                return index + 1, total + step(windows[index])

            count = tf.shape(windows)[0]
            return tf.while_loop(lambda i, _: i < count, body, [0, 0.0], parallel_iterations=1)[1]

        batch = (task.training.batch_size, task.model.sequence_length + 1)
        windows = tf.TensorSpec([None, *batch], tf.int32)
        self.many = tf.function(many, autograph=False).get_concrete_function(windows)
        self.train(np.zeros((1, *batch)))

    def train(self, windows: Any) -> float:
        return float(self.many(np.asarray(windows, np.int32))) / len(windows)


class JaxLoop:
    def __init__(self, model: Any, optimizer: Any, task: Task) -> None:
        import jax

        def loss(trained: Any, other: Any, windows: Any) -> Any:
            logits, _ = model.stateless_call(trained, other, windows[:, :-1])
            return token_loss(logits, windows[:, 1:])

        def many(state: Any, windows: Any) -> Any:
            def step(carried: Any, batch: Any) -> Any:
                trained, other, slots = carried
                value, gradients = jax.value_and_grad(loss)(trained, other, batch)
                trained, slots = optimizer.stateless_apply(slots, gradients, trained)
                return (trained, other, slots), value

            return jax.lax.scan(step, state, windows)

        variables = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
        self.state = tuple([each.value for each in group] for group in variables)
        self.many = jax.jit(many, donate_argnums=0)

    def train(self, windows: Any) -> float:
        self.state, losses = self.many(self.state, np.asarray(windows, np.int32))
        return float(losses.mean())
