"""What a candidate held on its device is given back when it has ended, however it ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import gc, json
import keras, jax
from primitives.programs.seeds import load_seed
from workers.spec.outcome import Budget
from workers.spec.task import DataSpec, ModelSpec, OptimizerSpec, Task, TrainingSpec
from workers.training.evaluate import evaluate

def task(**changes):
    return Task(data=DataSpec(max_documents=40),
                model=ModelSpec(d_model=64, layers=1, sequence_length=16),
                training=TrainingSpec(batch_size=4, eval_batches=2, backend="jax"), **changes)

wild = task(optimizer=OptimizerSpec(learning_rate=1e30, warmup_steps=1))
runs = [("transformer", task()), ("switch", task()), ("transformer", wild), ("primer_ez", task())]
for name, chosen in runs:
    outcome = evaluate(load_seed(name, 64), chosen, Budget("steps", 3), seed=1)
    gc.collect()
    held = sum(array.nbytes for array in jax.live_arrays())
    print(json.dumps([outcome.status, outcome.params, held]))
"""


@pytest.mark.slow
def test_jax_holds_no_arrays_of_candidates_that_ended() -> None:
    """Beside what the first run leaves, such as a seed, which is small against a model's weights:
    arrays on a CPU as they would be on a GPU."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=root, capture_output=True, text=True, check=True,
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(root)},
    )  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert [status for status, *_ in rows] == ["completed", "completed", "diverged", "completed"]
    for _, parameters, held in rows:
        assert held < 4 * parameters / 10
    assert len({held for *_, held in rows[1:]}) == 1
