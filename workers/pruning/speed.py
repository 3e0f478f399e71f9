"""How fast models are, side by side: timed in turns in one process, the fastest turn of each, so
that what else the machine does tells least."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from keras import ops

from workers.engines.learner import learner_of
from workers.model.ends import embedding_and_head
from workers.model.model import logits
from workers.pruning.student import Model
from workers.spec.task import Task

BATCHES = (1, 32)
"""Sequences of a pass: one that a person waits for, and many at once."""

TURNS = 25


def tokens_per_second(models: Mapping[str, Model], task: Task, batch: int) -> dict[str, float]:
    """Forward passes over whole sequences: tokens a second of each model."""
    length = task.model.sequence_length
    tokens = np.arange(batch * length).reshape(batch, length) % 97
    passes = {name: _compiled(model, task, tokens) for name, model in models.items()}
    taken: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(TURNS):
        for name, run in passes.items():
            start = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - start)
    return {name: batch * length / min(seconds) for name, seconds in taken.items()}


def _compiled(model: Model, task: Task, tokens: Any) -> Callable[[], None]:
    """A pass, which returns when the device is done: its last result is one number."""
    learner, outer = learner_of(task.training.backend), embedding_and_head(task.model)
    weights = [ops.convert_to_tensor(value) for value in model.values]
    tokens, seed = ops.convert_to_tensor(tokens, "int32"), ops.zeros(2, learner.integer)

    def forward(weights: Any, batch: Any) -> Any:
        made = logits(model.layers, weights, batch, False, seed, outer)[0]
        return made, made[0, 0, 0]

    compiled = learner.compiled(forward)

    def run() -> None:
        np.asarray(compiled(weights, tokens)[1])

    run()
    return run
