"""Calibration of a model's probabilities, and scores on another text."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from primitives.programs.seeds import load_seed
from workers.data.corpora import DataError, documents
from workers.data.tokens import load_tokens
from workers.engines.calibration import BINS, figures, sums
from workers.spec.outcome import Budget
from workers.spec.task import DataSpec, ModelSpec, OptimizerSpec, Task, TrainingSpec
from workers.training.evaluate import evaluate

LATER = DataSpec(options={"first_year": 1990})


def small(backend: str = "tensorflow", **more: object) -> Task:
    return Task(
        model=ModelSpec(d_model=16, layers=1, sequence_length=16),
        optimizer=OptimizerSpec(learning_rate=1e-2, warmup_steps=5),
        training=TrainingSpec(batch_size=4, eval_batches=4, backend=backend),
        **more,
    )


def slowly(logits: np.ndarray, targets: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """Position by position, from the papers' definitions."""
    bins: dict[int, list[tuple[float, float, float]]] = {}
    brier = 0.0
    for row, target, count in zip(logits, targets, counts, strict=True):
        chances = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        came = np.eye(len(row))[target]
        brier += count * float(((chances - came) ** 2).sum())
        place = min(int(chances.max() * BINS), BINS - 1)
        right = float(chances.argmax() == target)
        bins.setdefault(place, []).append((count, float(chances.max()), right))
    total = float(counts.sum())
    ece = 0.0
    for members in bins.values():
        weight = sum(count for count, _, _ in members)
        if weight:
            confidence = sum(count * best for count, best, _ in members) / weight
            accuracy = sum(count * right for count, _, right in members) / weight
            ece += weight / total * abs(accuracy - confidence)
    return {"ece": ece, "brier": brier / total}


@pytest.mark.parametrize("weighed", [False, True])
def test_figures_are_those_of_the_definitions(weighed: bool) -> None:
    rng = np.random.default_rng(3)
    logits = (3 * rng.standard_normal((4, 50, 9))).astype(np.float32)
    targets = rng.integers(0, 9, (4, 50))
    counts = rng.integers(0, 2, (4, 50)).astype(np.float32) if weighed else None
    found = figures(sums(logits, targets, counts))
    flat = np.ones(200) if counts is None else counts.reshape(-1)
    assert found == pytest.approx(
        slowly(logits.reshape(-1, 9), targets.reshape(-1), flat), rel=1e-4
    )


def test_two_positions_by_hand() -> None:
    """Certain and right; certain and wrong: half the promises are kept, and Brier is 0 and 2."""
    logits = np.array([[[50.0, 0.0], [50.0, 0.0]]], np.float32)
    assert figures(sums(logits, np.array([[0, 1]]), None)) == pytest.approx(
        {"ece": 0.5, "brier": 1.0}
    )
    assert figures(sums(logits, np.array([[0, 1]]), np.zeros((1, 2), np.float32))) == {}


def test_final_runs_are_scored_on_both_texts() -> None:
    """Another text that is the same text has the same score."""
    dna, budget = load_seed("transformer", 16), Budget("steps", 5)
    twin = evaluate(dna, small(transfer=DataSpec()), budget, 1, test=True)
    assert twin.metrics["transfer_loss"] == twin.test_loss
    assert twin.metrics["transfer_bpb"] == twin.test_bpb
    later = evaluate(dna, small(transfer=LATER), budget, 1, test=True)
    assert later.test_loss == twin.test_loss
    assert later.metrics["transfer_loss"] != later.test_loss
    for name in ("test_ece", "test_brier"):
        assert later.metrics[name] == twin.metrics[name]
    assert 0 <= later.metrics["test_ece"] <= 1 and 0 < later.metrics["test_brier"] < 2


@pytest.mark.parametrize("positions", ["rotary", "none"])
def test_models_without_learned_positions_are_calibrated_too(positions: str) -> None:
    model = ModelSpec(d_model=16, layers=1, sequence_length=16, positions=positions)
    task = small().model_copy(update={"model": model})
    found = evaluate(load_seed("transformer", 16), task, Budget("steps", 3), 1, test=True)
    assert found.status == "completed", found.reason
    assert 0 <= found.metrics["test_ece"] <= 1


def test_a_task_without_another_text_is_written_as_before() -> None:
    """So runs that were recorded before there was one are found."""
    assert "transfer" not in small().model_dump(mode="json")
    told = small(transfer=LATER).model_dump_json()
    assert Task.model_validate_json(told) == small(transfer=LATER)
    with pytest.raises(ValueError, match=r"transfer.tokenizer is bpe, and data.tokenizer is bytes"):
        small(transfer=DataSpec(tokenizer="bpe"))


def test_years_of_sotu() -> None:
    names = [document.name for document in documents(LATER)]
    assert names and min(names) >= "1990"
    early = DataSpec(options={"last_year": 1989})
    assert len(names) + len(list(documents(early))) == len(list(documents(DataSpec())))
    with pytest.raises(DataError, match="first_year 1990 is after last_year 1800"):
        list(documents(DataSpec(options={"first_year": 1990, "last_year": 1800})))
    with pytest.raises(DataError, match="write a year"):
        load_tokens(DataSpec(options={"first_year": "1990"}))


def test_both_texts_have_the_tokens_of_one_vocabulary() -> None:
    data = DataSpec(tokenizer="bpe", vocabulary=300, max_documents=6)
    other = data.model_copy(update={"options": {"first_year": 2010}})
    like, alone = load_tokens(other, like=data), load_tokens(other)
    assert like.vocabulary == load_tokens(data).vocabulary
    assert not np.array_equal(like.train[:500], alone.train[:500])
    again = data.model_copy(update={"max_documents": 6})
    assert np.array_equal(load_tokens(again, like=data).test, load_tokens(data).test)


JAX = """
import json, sys
from tests.workers.test_calibration import small, LATER
from primitives.programs.seeds import load_seed
from workers.spec.outcome import Budget
from workers.training.evaluate import evaluate
made = evaluate(load_seed("switch", 16), small("jax", transfer=LATER), Budget("steps", 5), 1, True)
print(json.dumps(dict(made.metrics)))
"""


@pytest.mark.slow
def test_jax_gives_the_same_figures() -> None:
    run = subprocess.run(
        [sys.executable, "-c", JAX], capture_output=True, text=True, check=True,
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    found = json.loads(run.stdout.splitlines()[-1])
    own = evaluate(load_seed("switch", 16), small(transfer=LATER), Budget("steps", 5), 1, True)
    for name in ("test_ece", "test_brier", "transfer_loss"):
        assert found[name] == pytest.approx(own.metrics[name], rel=2e-3)
