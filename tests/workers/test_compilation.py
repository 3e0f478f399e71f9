"""What a budget is worth compiling for."""

from __future__ import annotations

import pytest

from workers.engines import compilation
from workers.spec.outcome import Budget
from workers.spec.task import Task, TrainingSpec


def chosen(patch: pytest.MonkeyPatch, devices: set[str], budget: Budget, **training: str) -> str:
    patch.setattr(compilation, "accelerators", lambda: devices)
    task = Task(training=TrainingSpec(**training))
    made = compilation.settled(task, budget, 1.9e11, 1000).training
    return f"{made.jit} {made.precision}"


@pytest.mark.parametrize(
    ("devices", "budget", "expected"),
    [
        (set(), Budget("seconds", 1000), "off float32"),
        ({"gpu"}, Budget("seconds", 10), "off float32"),
        ({"gpu"}, Budget("seconds", 60), "on mixed_bfloat16"),
        ({"gpu"}, Budget("steps", 1000), "off float32"),  # a step is a hundredth of a second
        ({"gpu"}, Budget("steps", 6000), "on mixed_bfloat16"),
        ({"gpu"}, Budget("tokens", 6000 * 1000), "on mixed_bfloat16"),
        ({"gpu"}, Budget("flops", 2e13 * 36), "on mixed_bfloat16"),
        ({"tpu"}, Budget("steps", 1), "on mixed_bfloat16"),
    ],
)
def test_auto_follows_device_and_budget(monkeypatch, devices, budget, expected):
    assert chosen(monkeypatch, devices, budget) == expected


def test_jax_always_compiles_and_so_is_narrow_on_a_gpu(monkeypatch):
    assert chosen(monkeypatch, {"gpu"}, Budget("steps", 1), backend="jax") == "off mixed_bfloat16"
    assert chosen(monkeypatch, set(), Budget("steps", 1), backend="jax") == "off float32"


def test_what_a_config_says_stays(monkeypatch):
    told = {"jit": "on", "precision": "mixed_bfloat16"}
    assert chosen(monkeypatch, set(), Budget("steps", 1), **told) == "on mixed_bfloat16"


def test_mixed_precision_trains_nearly_alike(tiny_task):
    from primitives.programs.seeds import load_seed
    from workers.training.evaluate import evaluate

    training = tiny_task.training.model_copy(update={"precision": "mixed_bfloat16"})
    mixed = tiny_task.model_copy(update={"training": training})
    dna, budget = load_seed("primer_ez"), Budget("steps", 30)
    one, other = (evaluate(dna, task, budget, seed=1).val_loss for task in (mixed, tiny_task))
    assert 0 < abs(one - other) < 0.05
