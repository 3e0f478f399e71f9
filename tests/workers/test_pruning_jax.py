"""Pruning on JAX: the same steps as on TensorFlow, and a run that is stopped ends as one that is
not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from primitives.graph.build import Graph, build
from primitives.programs.seeds import load_seed
from workers.model.shape import initial_model, shape_of
from workers.pruning.plan import plan
from workers.pruning.student import Model, scorer
from workers.pruning.trainer import Trainer
from workers.spec.task import DataSpec, ModelSpec, OptimizerSpec, Task, TrainingSpec

STEPS, ROWS = 6, 256


def task_on(backend: str) -> Task:
    return Task(
        data=DataSpec(max_documents=40),
        model=ModelSpec(d_model=16, layers=2, sequence_length=12),
        optimizer=OptimizerSpec(warmup_steps=5, learning_rate=5e-3),
        training=TrainingSpec(batch_size=4, eval_batches=2, backend=backend),
    )


def taught(backend: str) -> list[float]:
    """Losses of a student that a teacher of other start values teaches; draws play no part."""
    task = task_on(backend)
    graph = build(load_seed("switch", 16))
    assert isinstance(graph, Graph)
    found = plan(graph, task, ROWS)
    graphs = tuple(layer.graph for layer in found.layers)
    shape = shape_of(graphs, task.model, ROWS)
    student, teacher = (Model.of(graphs, task, initial_model(shape, seed)) for seed in (0, 1))
    windows = np.random.default_rng(2).integers(0, ROWS, (STEPS, 4, 13))
    trainer = Trainer(student, task, 0, teacher)
    losses = [trainer.train(windows[at : at + 1], at) for at in range(STEPS)]
    loss, loads = scorer(student._replace(values=trainer.values()), task)(windows)
    return [*losses, loss, *(float(load.sum()) for load, *_ in loads)]


SCRIPT = """
import json, sys
from pathlib import Path
import pytest
from tests.workers.test_pruning_jax import pruned_in_three_goes, taught
with pytest.MonkeyPatch.context() as patch:
    print(json.dumps([taught("jax"), pruned_in_three_goes(Path(sys.argv[1]), "jax", patch)]))
"""


def pruned_in_three_goes(
    folder: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> list[bool | float]:
    """Whether a run that is stopped twice gives the weights of one that is not; the share that
    went; what the whole and the pruned model score."""
    from workers.pruning import pruning
    from workers.pruning.checkpoint import Checkpoint
    from workers.pruning.failure import Interrupted
    from workers.pruning.pruning import Settings, prune
    from workers.pruning.target import Target

    task = task_on(backend)
    graph = build(load_seed("transformer", 16))
    assert isinstance(graph, Graph)
    found = plan(graph, task, ROWS)
    shape = shape_of([layer.graph for layer in found.layers], task.model, ROWS)
    values = initial_model(shape, 0)
    settings = Settings(Target("parameters", 0.5), 40, seed=1, baselines=False)
    monkeypatch.setattr(pruning, "CHUNK", 8)
    whole = prune(graph, task, values, settings)
    for stop in (1, 3):
        asked = iter([False] * (stop - 1) + [True] * 9).__next__
        with pytest.raises(Interrupted):
            prune(graph, task, values, settings, Checkpoint(folder), stopped=asked)
    told: list[int] = []
    again = prune(
        graph, task, values, settings, Checkpoint(folder), lambda each: told.append(each.done)
    )
    assert told[0] == 28, "3 chunks end the 20 steps under gates, and there was one more"
    same = [np.array_equal(a, b) for a, b in zip(whole.values, again.values, strict=True)]
    bits = {row.name: row.test_bpb for row in whole.rows}
    return [all(same), whole.share_gone, bits["whole"], bits["pruned"]]


@pytest.mark.slow
def test_jax_prunes_as_tensorflow_does(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=1200,
        env={**os.environ, "KERAS_BACKEND": "jax"}, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    losses, (same, gone, whole, pruned) = json.loads(result.stdout.splitlines()[-1])
    assert losses == pytest.approx(taught("tensorflow"), abs=2e-4)
    assert same and gone >= 0.5 and pruned < whole - 0.5


def test_a_run_that_is_stopped_ends_as_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same, gone, whole, pruned = pruned_in_three_goes(tmp_path, "tensorflow", monkeypatch)
    assert same and gone >= 0.5 and pruned < whole - 0.5
