"""Expert tables on JAX: a step changes the rows that it read, as on TensorFlow, and copies none of
the others."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from primitives.graph.build import build
from tests.reference.random_programs import PRODUCT_KEYS
from workers.model.shape import initial_model, model_shape
from workers.spec.task import ModelSpec, OptimizerSpec, Task, TrainingSpec

ROWS = 256
STEPS = 4

MODEL = ModelSpec(d_model=16, layers=2, sequence_length=16, share_layers=True)
GRAPH = build(replace(PRODUCT_KEYS, counts=(ROWS, *PRODUCT_KEYS.counts[1:])))
"""ROWS^2 experts, read in each of two layers that share them."""


def start() -> list[np.ndarray]:
    return initial_model(model_shape(GRAPH, MODEL, 256), 1)


def trained(backend: str) -> Any:
    """An engine after STEPS steps, with clipping and decay."""
    from workers.engines.engine import make_engine

    task = Task(
        model=MODEL,
        optimizer=OptimizerSpec(warmup_steps=2, weight_decay=0.1, clip_norm=0.05),
        training=TrainingSpec(
            batch_size=4, routing="entries", backend=backend, jit="off", precision="float32"
        ),
    )
    engine = make_engine(GRAPH, start(), task, 1)
    engine.train(np.random.default_rng(0).integers(0, 256, (STEPS, 4, 17)))
    return engine


JAX = """
import sys
import numpy as np
from tests.workers.test_jax_tables import trained
engine = trained("jax")
kept = engine._steps.train.memory_analysis().temp_size_in_bytes
np.savez(sys.argv[1], kept, *engine.weights())
"""


@pytest.mark.slow
def test_tables_on_jax_are_those_on_tensorflow(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    subprocess.run(
        [sys.executable, "-c", JAX, str(tmp_path / "it.npz")], check=True, capture_output=True,
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    with np.load(tmp_path / "it.npz") as arrays:
        kept, *found = arrays.values()
    expected = trained("tensorflow").weights()
    tables = [place for place, array in enumerate(expected) if len(array) == ROWS**2]
    assert len(tables) == 2 and kept < expected[tables[0]].nbytes
    for place, (mine, wanted) in enumerate(zip(found, expected, strict=True)):
        np.testing.assert_allclose(mine, wanted, atol=1e-5)
        moved = np.any(mine != start()[place], axis=-1)
        assert place not in tables or 0 < np.mean(moved) < 0.1
