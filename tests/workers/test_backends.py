"""The table of backends: what a row decides, and that a row is all that a backend takes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from primitives.programs.seeds import load_seed
from workers.machine.backends import BACKENDS, TENSORFLOW, Backend, configure
from workers.machine.devices import Layout
from workers.spec.outcome import Budget
from workers.spec.task import Task, TrainingSpec
from workers.training.evaluate import evaluate

CONFIGURED: list[Layout] = []


@pytest.fixture
def stub() -> Iterator[Backend]:
    """TensorFlow's engine under another name: a backend that a plug-in would bring."""
    row = Backend(
        name="stub",
        keras="tensorflow",
        configure=lambda layout, limit: CONFIGURED.append(layout),
        engine="tests.workers.test_backends:CountingEngine",
        packages=("numpy", "no-such-package"),
    )
    yield BACKENDS.register(row)
    del BACKENDS["stub"]


def __getattr__(name: str) -> object:
    """The stub's engine, which is made when it is asked for, as its framework is imported then."""
    if name != "CountingEngine":
        raise AttributeError(name)
    from workers.engines.tensorflow_engine import TensorFlowEngine

    class CountingEngine(TensorFlowEngine):
        def train(self, windows):
            STEPS.append(len(windows))
            return super().train(windows)

    return CountingEngine


STEPS: list[int] = []


def test_a_registered_backend_trains_a_candidate(stub, tiny_task):
    training = TrainingSpec.model_validate(tiny_task.training.model_dump() | {"backend": "stub"})
    task = tiny_task.model_copy(update={"training": training})
    dna, budget = load_seed("transformer"), Budget("steps", 3)
    STEPS.clear()
    ours, plain = (evaluate(dna, each, budget, seed=1) for each in (task, tiny_task))
    assert ours.status == "completed" and ours.val_loss == plain.val_loss
    assert STEPS == [3]
    assert list(stub.versions()) == ["numpy"]


def test_a_registered_backend_sets_its_processes_up(stub, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    configure("stub", Layout(1, 3, 0.0), None)
    assert [Layout(1, 3, 0.0)] == CONFIGURED


def test_jax_without_gpus_is_refused_where_a_worker_was_given_one(monkeypatch):
    """By itself it would train on the processor."""
    jax = pytest.importorskip("jax")
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr("os.environ", dict(os.environ))
    with pytest.raises(RuntimeError, match="JAX sees no GPU in a worker that was given one"):
        BACKENDS["jax"].configure(Layout(1, 1, 1.0), None)


def test_an_unknown_backend_is_named_with_the_nearest_one():
    with pytest.raises(ValueError, match="unknown backend 'tensorflo'; did you mean 'tensorflow'"):
        TrainingSpec(backend="tensorflo")
    with pytest.raises(ValueError, match="allowed: tensorflow, jax"):
        TrainingSpec(backend="torch")


@pytest.mark.parametrize("row", BACKENDS.values(), ids=list(BACKENDS))
def test_rows_name_engines_and_packages_that_exist(row):
    module, _, name = row.engine.partition(":")
    assert find_spec(module) is not None and name
    assert row.packages[0] == "keras"
    if find_spec(row.name) is not None:
        assert row.load_engine().__name__ == name
        assert list(row.versions()) == list(row.packages)


def test_lowering_follows_the_row(monkeypatch, tiny_task):
    """A fused kernel is asked for where the row says that the backend has one."""
    from dataclasses import replace

    from primitives import build
    from workers.model import model

    asked = []
    lower = model.lower
    monkeypatch.setattr(model, "accelerators", lambda: {"gpu"})
    monkeypatch.setattr(model, "lower", lambda *a, **k: asked.append(a[2]) or lower(*a, **k))
    training = tiny_task.training.model_copy(update={"precision": "mixed_bfloat16"})
    task = tiny_task.model_copy(update={"training": training})
    for kinds in ({"gpu"}, {"tpu"}):
        row = replace(TENSORFLOW, flash=frozenset(kinds))
        monkeypatch.setitem(BACKENDS, "tensorflow", row)
        model.model_layers(build(load_seed("transformer")), task)
    assert [(options.fused, options.flash) for options in asked] == [(True, True), (True, False)]


def test_neither_reading_a_task_nor_the_evaluator_imports_a_framework():
    """Keras chooses its backend when it is imported, so the task must come first."""
    code = f"""if True:
        import sys
        import workers.training.evaluate
        from workers.spec.task import Task
        Task.model_validate_json({Task().model_dump_json()!r})
        assert not {{"keras", "tensorflow", "jax"}} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", code], check=True)
