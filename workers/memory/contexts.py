"""A stretch of text as a trained model sees it: for each position what it predicts, and the vectors
by which the position can be remembered."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from primitives.graph.build import Graph
from primitives.kernels.tasks import ids_of
from workers.data.tokens import SEPARATOR_ID
from workers.spec.task import Task

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Contexts:
    """The positions of consecutive segments, in order; N in all.

    Attributes:
        losses: [N], the cross entropy of the next token by the vocabulary alone, in nats.
        right: [N], the next token's logit, so that losses + right is the logarithm of the sum over
            the vocabulary.
        states: [N, d_model], what the logits are products of.
        g: [N, d_model], what the last block remembers a context by, see `lowering.memory`.
        labels: [N], the next tokens.
        documents: [N], the number of the document that the next token belongs to.
        length: positions of a segment.
        seconds: what the model took.
    """

    losses: Floats
    right: Floats
    states: Floats
    g: Floats
    labels: npt.NDArray[np.int32]
    documents: npt.NDArray[np.int32]
    length: int
    seconds: float


def contexts_of(
    graph: Graph, task: Task, values: Sequence[Any], tokens: npt.NDArray[Any], most: int
) -> Contexts:
    """The first `most` positions of a split, in whole segments and at least one; `values` are the
    model's weights in its order."""
    length, batch = task.model.sequence_length, task.training.batch_size
    count = max(1, min(most, len(tokens) - 1) // length)
    text = np.asarray(tokens[: count * length + 1], np.int32)
    windows = np.lib.stride_tricks.sliding_window_view(text, length + 1)[::length]
    function = _model(graph, task, values)
    function(np.zeros((batch, length + 1), np.int32))  # compiles
    made: list[list[Any]] = []
    started = time.perf_counter()
    for first in range(0, count, batch):
        filled = np.zeros((batch, length + 1), np.int32)
        part = windows[first : first + batch]
        filled[: len(part)] = part
        made.append([np.asarray(each)[: len(part)] for each in function(filled)])
    seconds, ids = time.perf_counter() - started, ids_of(text)
    losses, right, states, g = (
        np.concatenate(parts).astype(np.float32) for parts in zip(*made, strict=True)
    )
    return Contexts(
        losses.reshape(-1), right.reshape(-1), states.reshape(count * length, -1),
        g.reshape(count * length, -1), ids[1:],
        np.cumsum(ids[:-1] == SEPARATOR_ID, dtype=np.int32), length, seconds,
    )  # fmt: skip


def _model(graph: Graph, task: Task, values: Sequence[Any]) -> Any:
    """Windows [batch, T + 1] -> losses and logits of the targets [batch, T], states and memories
    [batch, T, d_model]."""
    from keras import ops

    from workers.model.compiled import compiled
    from workers.model.ends import embedding_and_head
    from workers.model.model import model_layers, remembered

    layers = model_layers(graph, task, remembering=True)
    outer = embedding_and_head(task.model)
    weights = [ops.convert_to_tensor(value) for value in values]
    return compiled(lambda windows: remembered(layers, weights, windows, outer))
