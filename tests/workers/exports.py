"""Programs with weights, what they compute here, and how to run what was exported from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from primitives.graph.build import build
from primitives.language.dna import DNA
from workers.data.tokens import load_tokens
from workers.model.model import logits, model_layers
from workers.model.shape import initial_model, model_shape
from workers.spec.task import ModelSpec, Task

SPEC = ModelSpec(d_model=16, layers=2, sequence_length=12)
CHECK = Path(__file__).with_name("check_export.py")


def weights_of(dna: DNA, spec: ModelSpec = SPEC, vocabulary: int = 256) -> dict[str, np.ndarray]:
    """Weights by name, every one of them random so that none can take another's place."""
    shape = model_shape(build(dna, bidirectional=True), spec, vocabulary)
    rng = np.random.default_rng(7)
    start = initial_model(shape, seed=3)
    values = [(w + 0.1 * rng.standard_normal(w.shape)).astype(np.float32) for w in start]
    return dict(zip(shape.names, values, strict=True))


def expected_logits(dna: DNA, weights: Mapping[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
    layers = model_layers(build(dna), Task(model=SPEC))
    return np.asarray(logits(layers, list(weights.values()), tokens, False, None)[0])


def load_module(source: str, name: str = "exported") -> ModuleType:
    module = ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
    return module


def variables(model: Any) -> list[Any]:
    """In the order of `workers.model.model`."""
    around = [model.embedding.embeddings, model.positions.embeddings, *model.norm.weights]
    return around + [variable for block in model.blocks for variable in block.weights]


def loss_on_validation(model: Any, task: Task) -> float:
    return loss_on_split(model, task, "validation")


def loss_on_split(model: Any, task: Task, split: str) -> float:
    import keras

    length, training = task.model.sequence_length, task.training
    split = getattr(load_tokens(task.data), split)
    windows = np.lib.stride_tricks.sliding_window_view(split, length + 1)
    count = training.eval_batches * training.batch_size
    chosen = windows[np.linspace(0, len(windows) - 1, count).astype(np.int64)].astype("int32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return float(loss(chosen[:, 1:], model(chosen[:, :-1])))
