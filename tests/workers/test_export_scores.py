"""An export of trained weights has the score that they have, and says how it was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from primitives.graph.build import build
from primitives.language.jsonform import from_json
from primitives.language.text import parse
from primitives.programs.seeds import load_seed
from tests.workers.exports import (
    SPEC,
    load_module,
    loss_on_split,
    loss_on_validation,
    variables,
    weights_of,
)
from workers.data.tokens import load_tokens
from workers.export.export import export, export_candidate
from workers.model.shape import initial_model, model_shape
from workers.spec.outcome import Budget
from workers.spec.task import OptimizerSpec, Task


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_a_trained_program_keeps_its_score(tiny_task: Task, tmp_path: Path, optimizer: str) -> None:
    task = tiny_task.model_copy(update={"optimizer": OptimizerSpec(name=optimizer, warmup_steps=5)})
    dna, record = load_seed("primer_ez"), {"id": 4, "val_loss": 2.5, "val_bpb": 3.6, "steps": 9}
    export_candidate(
        dna, tmp_path / "out", task=task, budget=Budget("steps", 20), seed=5,
        card={"program": "run-4", "candidate": record, "budget": {"unit": "steps"}},
    )  # fmt: skip
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert from_json(card["dna"]) == parse(card["text"]) == dna
    assert (card["hash"], card["candidate"]) == (build(dna).hash, record)
    assert Task.model_validate_json(json.dumps(card["task"])) == task
    run = card["weights"]
    assert (run["seed"], run["steps"], run["budget"]["amount"]) == (5, 20, 20)
    source = (tmp_path / "out" / "run_4_block.py").read_text()
    model = load_module(source).build_model()
    model.load_weights(tmp_path / "out" / "model.weights.h5")
    assert loss_on_validation(model, task) == pytest.approx(run["val_loss"], abs=1e-4)
    assert "2.5000 nats a token, 3.6000 bits a byte after 9 steps" in source
    told = " ".join(source.split())
    assert f"{run['test_bpb']:.4f} bits a byte; expected calibration error" in told
    assert " after 20 steps" in told
    assert model.count_params() == card["static_cost"]["parameters"]


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_the_card_has_the_exported_models_own_score(
    tiny_task: Task, tmp_path: Path, precision: str
) -> None:
    """Recomputed from the saved model. A run in bfloat16 scored a little otherwise, and the card,
    the README and the module say so; nothing else does."""
    training = tiny_task.training.model_copy(update={"precision": precision})
    task = tiny_task.model_copy(update={"training": training})
    folder = tmp_path / "out"
    export_candidate(
        load_seed("transformer"), folder, task=task, budget=Budget("steps", 20), seed=5,
        card={"program": "it"},
    )  # fmt: skip
    card = json.loads((folder / "card.json").read_text())
    scores, run = card["exported"], card["weights"]
    for name in ("test_ece", "test_brier"):
        assert scores[name] == pytest.approx(run[name], abs=2e-3)
    assert (card["trained_in"], scores["precision"]) == (precision, "float32")
    source = (folder / "it_block.py").read_text()
    model = load_module(source).build_model()
    model.load_weights(folder / "model.weights.h5")
    tokens = load_tokens(task.data)
    for split, short in (("validation", "val"), ("test", "test")):
        loss = loss_on_split(model, task, split)
        bits = loss / np.log(2) / tokens.bytes_per_token[split]
        assert scores[f"{short}_loss"] == pytest.approx(loss, abs=1e-5)
        assert scores[f"{short}_bpb"] == pytest.approx(bits, abs=1e-5)
        differs = abs(scores[f"{short}_loss"] - run[f"{short}_loss"])
        assert differs < 1e-5 if precision == "float32" else 1e-5 < differs < 0.05
    for text in (source, (folder / "README.md").read_text()):
        said = " ".join(text.split())
        assert f"{scores['val_bpb']:.4f} bits a byte" in said
        assert f"computed in {scores['precision']}" in said
        assert ("differ from these by roundings" in said) == (precision != "float32")


def test_weights_of_an_unknown_precision_are_said_to_be(tmp_path: Path) -> None:
    dna = load_seed("transformer")
    weights = weights_of(dna)
    np.savez(tmp_path / "old.npz", **weights)
    np.savez(tmp_path / "new.npz", precision="mixed_bfloat16", **weights)
    for file, trained_in in (("old", "unknown"), ("new", "mixed_bfloat16")):
        export(
            dna, tmp_path / file, task=Task(model=SPEC), weights=tmp_path / f"{file}.npz",
            card={"program": "it"},
        )  # fmt: skip
        card = json.loads((tmp_path / file / "card.json").read_text())
        assert card["trained_in"] == trained_in
    assert "is not known" in (tmp_path / "old" / "README.md").read_text().replace("\n", " ")


def test_the_weights_of_a_file_are_not_trained_again(tmp_path: Path) -> None:
    dna = load_seed("transformer")
    weights = weights_of(dna)
    np.savez(tmp_path / "kept.npz", **weights)
    export_candidate(
        dna, tmp_path / "out", task=Task(model=SPEC), budget=Budget("steps", 10**9), seed=0,
        card={"program": "kept"}, weights=tmp_path / "kept.npz",
    )  # fmt: skip
    model = load_module((tmp_path / "out" / "kept_block.py").read_text()).build_model()
    model.load_weights(tmp_path / "out" / "model.weights.h5")
    for array, variable in zip(weights.values(), variables(model), strict=True):
        np.testing.assert_array_equal(array, np.asarray(variable))


def test_an_untrained_export_has_the_start_values_of_its_seed(
    tiny_task: Task, tmp_path: Path
) -> None:
    dna = load_seed("transformer")
    export_candidate(
        dna, tmp_path / "out", task=tiny_task, budget=Budget("steps", 10**9), seed=4,
        card={"program": "it"}, untrained=True,
    )  # fmt: skip
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert (card["trained"], card["trained_in"], card.get("weights")) == (False, "untrained", None)
    readme = " ".join((tmp_path / "out" / "README.md").read_text().split())
    assert "the weights are start values: nothing was trained" in readme
    model = load_module((tmp_path / "out" / "it_block.py").read_text()).build_model()
    model.load_weights(tmp_path / "out" / "model.weights.h5")
    expected = initial_model(model_shape(build(dna), tiny_task.model, 256), seed=4)
    for array, variable in zip(expected, variables(model), strict=True):
        np.testing.assert_array_equal(array, np.asarray(variable))
