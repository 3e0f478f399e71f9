"""How fast models are, side by side: timed in turns in one process, the fastest turn of each, so
that what else the machine does tells least."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from workers.model.ends import embedding_and_head
from workers.model.model import logits
from workers.pruning.trainer import Model
from workers.spec.task import Task

BATCHES = (1, 32)
"""Sequences of a pass: one that a person waits for, and many at once."""

TURNS = 25


def tokens_per_second(models: Mapping[str, Model], task: Task, batch: int) -> dict[str, float]:
    """Forward passes over whole sequences: tokens a second of each model."""
    length = task.model.sequence_length
    tokens = tf.constant(np.arange(batch * length).reshape(batch, length) % 97, tf.int32)
    passes = {name: _compiled(model, task, tokens) for name, model in models.items()}
    taken: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(TURNS):
        for name, run in passes.items():
            start = time.perf_counter()
            run(tokens).numpy()
            taken[name].append(time.perf_counter() - start)
    return {name: batch * length / min(seconds) for name, seconds in taken.items()}


def _compiled(model: Model, task: Task, tokens: Any) -> Any:
    weights: Sequence[Any] = [tf.constant(value) for value in model.values]
    seed, outer = tf.zeros(2, tf.int32), embedding_and_head(task.model)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def run(batch: Any) -> Any:
        return logits(model.layers, weights, batch, False, seed, outer)[0]

    run(tokens)
    return run
