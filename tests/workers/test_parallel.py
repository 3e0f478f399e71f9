"""An exported mixture on several devices, by Keras' own distribution: eight virtual ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from primitives.programs.seeds import load_seed
from workers.export.export import export_candidate
from workers.spec.outcome import Budget
from workers.spec.task import DataSpec, ModelSpec, Task, TrainingSpec

SCRIPT = Path(__file__).with_name("parallel.py")


@pytest.mark.slow
def test_losses_are_those_of_one_device(tmp_path: Path) -> None:
    """At the start and after one and two steps, within 1e-5; and the experts do lie apart."""
    task = Task(
        data=DataSpec(max_documents=20),
        model=ModelSpec(d_model=16, layers=1, sequence_length=16),
        training=TrainingSpec(batch_size=8, eval_batches=2),
    )
    folder = tmp_path / "out"
    export_candidate(
        load_seed("switch", 16), folder, task=task, budget=Budget("steps", 5), seed=1,
        card={"program": "switch"},
    )  # fmt: skip
    flags = "--xla_force_host_platform_device_count=8"
    environment = {
        **os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags,
        "PYTHONPATH": "",
    }  # fmt: skip
    run = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout.splitlines()[-1])
    alone = found["alone"]["losses"]
    assert len(set(alone)) == 3 and found["alone"]["devices"] == 8
    for name in ("data", "experts", "both"):
        assert found[name]["losses"] == pytest.approx(alone, abs=1e-5), name
    assert found["alone"]["shards"] == [[8, 16, 64]]
    assert found["data"]["shards"] == [[8, 16, 64]] * 8
    assert found["experts"]["shards"] == [[1, 16, 64]] * 8
    assert found["both"]["shards"] == [[2, 16, 64]] * 8
