"""Routed models that start from a trained dense one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from primitives import DNA, parse, render
from primitives.programs.seeds import load_seed
from tests.cli.command import primevo
from workers.spec.outcome import Budget, Outcome
from workers.spec.task import Task
from workers.training.evaluate import evaluate

STEPS = Budget("steps", 20)

ROUTER = """
router(x, y):
  scores = SCORE(x) count=n0
  best = TOP_K(scores) count=n1
  exponential = EXP(best)
  total = RED SUM(exponential)
  out = DIVIDE(exponential, total)
"""


def routed(dense: DNA, wide: int = 32) -> DNA:
    """The program with two of eight copies of its feed-forward, whose gates sum to 1."""
    call = "  gates = router(renormed)\n  fed = feed_forward(renormed, gates) branch=routed"
    text = render(dense).replace("d2=32", f"d2={wide}")
    text = text.replace("\nmain(x, y):", "counts n0=8 n1=2\n\nmain(x, y):", 1)
    return parse(text.replace("  fed = feed_forward(renormed)", call, 1) + ROUTER)


@pytest.fixture(scope="module")
def transformer() -> DNA:
    return load_seed("transformer", 16)


@pytest.fixture(scope="module")
def dense(transformer: DNA, tiny_task: Task, tmp_path_factory: Any) -> tuple[Path, Outcome]:
    path = tmp_path_factory.mktemp("dense") / "dense.npz"
    made = evaluate(transformer, tiny_task, STEPS, seed=3, weights=str(path))
    assert made.status == "completed", made.reason
    return path, made


def upcycled(dna: DNA, task: Task, path: Path, tmp_path: Path, steps: int = 1) -> Any:
    """The outcome of so many steps, and the weights; a learning rate of 0 leaves start values."""
    kept = tmp_path / "kept.npz"
    made = evaluate(dna, task, Budget("steps", steps), 5, weights=str(kept), start=str(path))
    assert made.status == "completed", made.reason
    with np.load(kept) as arrays:
        return made, {name: arrays[name] for name in arrays.files if name != "precision"}


def still(task: Task) -> Task:
    """Its steps change next to nothing."""
    optimizer = task.optimizer.model_copy(update={"learning_rate": 1e-12})
    return task.model_copy(update={"optimizer": optimizer})


def test_copies_give_what_the_dense_model_gives(
    transformer: DNA, dense: tuple[Path, Outcome], tiny_task: Task, tmp_path: Path
) -> None:
    path, trained = dense
    made, weights = upcycled(routed(transformer), still(tiny_task), path, tmp_path)
    assert made.val_loss == pytest.approx(trained.val_loss, abs=1e-5)
    fresh = evaluate(routed(transformer), still(tiny_task), Budget("steps", 1), 5)
    assert fresh.val_loss is not None and made.val_loss is not None
    assert fresh.val_loss > made.val_loss + 0.1
    with np.load(path) as arrays:
        wide = arrays["blocks/0/feed_forward_wide_kernel"]
        own = weights["blocks/0/feed_forward_wide_kernel"]
        assert own.shape == (8, *wide.shape)
        np.testing.assert_allclose(own, np.stack([wide] * 8), atol=1e-6)
    scores = weights["blocks/0/router_scores_score"]
    assert scores.shape[-1] == 8 and scores.std() > 0.05


def test_training_goes_on_from_there(
    transformer: DNA, dense: tuple[Path, Outcome], tiny_task: Task, tmp_path: Path
) -> None:
    path, trained = dense
    made, weights = upcycled(routed(transformer), tiny_task, path, tmp_path, steps=40)
    assert made.val_loss is not None and trained.val_loss is not None
    assert made.val_loss < trained.val_loss
    wide = weights["blocks/0/feed_forward_wide_kernel"]
    assert np.abs(wide[0] - wide[1]).max() > 1e-3  # experts went different ways


def test_every_second_layer_may_be_routed(
    dense: tuple[Path, Outcome], transformer: DNA, tiny_task: Task, tmp_path: Path
) -> None:
    model = tiny_task.model.model_copy(update={"layers": 2, "other": "transformer"})
    task = tiny_task.model_copy(update={"model": model})
    path = tmp_path / "two.npz"
    trained = evaluate(transformer, task, STEPS, seed=3, weights=str(path))
    text = render(routed(transformer)).replace("counts n0=8 n1=2", "counts n0=8 n1=2\nevery 2")
    made, weights = upcycled(parse(text), still(task), path, tmp_path)
    assert made.val_loss == pytest.approx(trained.val_loss, abs=1e-5)
    assert {name.split("/")[1] for name in weights if "router" in name} == {"1"}


@pytest.mark.parametrize(
    ("wide", "model", "says"),
    [
        (16, {}, r"layer 1: the dense model has 'feed_forward_wide_kernel' of shape \(16, 64\), "
         r"and this program needs 'feed_forward_wide_kernel' of shape \(16, 32\) in each expert"),
        (32, {"layers": 3}, r"has weights in 1 layers, and this one in 3: task.model.layers"),
        (32, {"d_model": 48}, r"'embedding' has shape .* in the dense model, .* needs .*48"),
    ],
)  # fmt: skip
def test_models_that_do_not_agree_are_told_so(
    transformer: DNA, dense: tuple[Path, Outcome], tiny_task: Task, wide: int,
    model: dict[str, int], says: str,
) -> None:  # fmt: skip
    task = tiny_task.model_copy(update={"model": tiny_task.model.model_copy(update=model)})
    made = evaluate(routed(transformer, wide), task, STEPS, 5, start=str(dense[0]))
    assert made.status == "invalid"
    assert re.search(says, made.reason), made.reason


def test_a_file_that_is_not_there(transformer: DNA, tiny_task: Task, tmp_path: Path) -> None:
    made = evaluate(routed(transformer), tiny_task, STEPS, 5, start=str(tmp_path / "no.npz"))
    assert made.status == "invalid" and "cannot read the weights" in made.reason


@pytest.mark.parametrize("content", [b"", b"PK\3\4" * 9, b"\x93NUMPY", b"text"])
def test_a_damaged_file(transformer: DNA, tiny_task: Task, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    made = evaluate(routed(transformer), tiny_task, STEPS, 5, start=str(tmp_path / "a.npz"))
    assert made.status == "invalid" and "a.npz: damaged (" in made.reason


CONFIG = """\
task:
  model: {d_model: 32, layers: 1, sequence_length: 16}
  training: {batch_size: 4, eval_batches: 2}
search:
  seeds: [transformer]
  candidates: 1
  budget: {unit: steps, base: 5}
"""


def test_an_exported_model_is_upcycled_and_exported(
    transformer: DNA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.export.reading import exported_model

    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(CONFIG)
    Path("dense.dna").write_text(render(transformer))
    Path("routed.dna").write_text(render(routed(transformer)))
    Path("narrow.dna").write_text(render(routed(transformer, 16)))

    def export(program: str, *more: str, code: int = 0) -> str:
        command = ("export", "--dna", f"{program}.dna", "--config", "config.yaml")
        return primevo(*command, *more, code=code).stderr

    def outputs(folder: str) -> np.ndarray:
        tokens = np.arange(16, dtype=np.int32)[None] * 5
        return np.asarray(exported_model(Path(folder))(tokens))

    export("dense", "--to", "dense")
    export("routed", "--untrained", "--from", "dense", "--to", "upcycled")
    np.testing.assert_allclose(outputs("upcycled"), outputs("dense"), atol=1e-5)
    export("routed", "--untrained", "--to", "fresh")
    assert np.abs(outputs("fresh") - outputs("dense")).max() > 1e-2
    said = export("narrow", "--untrained", "--from", "dense", code=1)
    assert "an expert has to do what the dense block does there" in said
    said = export("routed", "--from", "config.yaml", "--to", "other", code=2)
    assert "--from: cannot read the weights config.yaml" in said
