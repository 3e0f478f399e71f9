"""Memories that trained models are scored with: against sums taken one by one, and what each may
see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from primitives import build
from primitives.programs.seeds import load_seed
from workers.data.tokens import load_tokens
from workers.engines.engine import make_engine
from workers.memory import scores
from workers.memory.contexts import Contexts, contexts_of
from workers.memory.masses import NOTHING, datastore, earlier, joint, mixed
from workers.memory.memories import MEMORIES
from workers.memory.nearest import ExactIndex, FaissIndex, index_of
from workers.memory.scores import Choice, memory_scores
from workers.model.shape import initial_model, model_shape
from workers.spec.outcome import Budget
from workers.spec.task import DataSpec
from workers.training.evaluate import evaluate

SEED = load_seed("transformer")
N, D, V, T = 24, 8, 5, 4


def made(seed: int = 0) -> Contexts:
    """Positions of three documents, with logits of their own."""
    rng = np.random.default_rng(seed)
    states, g = rng.standard_normal((2, N, D)).astype(np.float32) * 1.3
    logits, labels = rng.standard_normal((N, V)), rng.integers(0, V, N).astype(np.int32)
    right = logits[np.arange(N), labels]
    losses = np.log(np.exp(logits).sum(-1)) - right
    documents = np.repeat([0, 1, 2], [9, 11, 4]).astype(np.int32)
    wide = losses.astype(np.float32), right.astype(np.float32)
    return Contexts(*wide, states, g, labels, documents, T, 0.1)


@pytest.mark.parametrize("reach", [None, 5, 100])
def test_earlier_positions_one_by_one(reach):
    found = made()
    for temperature, masses in zip(
        (1.0, 0.5), earlier(found, found.g, reach, (1.0, 0.5)), strict=True
    ):
        for t in range(N):
            every = fits = 0.0
            for j in range(t):
                if reach is None:
                    allowed = j // T == t // T
                else:
                    allowed = found.documents[j] == found.documents[t]
                    allowed &= j >= t // T * T - reach
                if allowed:
                    mass = np.exp(float(found.g[j] @ found.g[t]) / D**0.5 / temperature)
                    every += mass
                    fits += mass * (found.labels[j] == found.labels[t])
            with np.errstate(divide="ignore"):
                expected = np.log([every, fits])
            np.testing.assert_allclose([masses.every[t], masses.fits[t]], expected, rtol=1e-5)


@pytest.mark.parametrize("by_distance", [False, True])
def test_the_nearest_entries_one_by_one(by_distance):
    found, stored = made(), made(1)
    index = ExactIndex(stored.g, by_distance)
    (masses,) = datastore(found, index, stored.labels, 6, [2.0])
    for t in range(N):
        products = stored.g @ found.g[t]
        likeness = -np.square(stored.g - found.g[t]).sum(-1) if by_distance else products
        best = np.argsort(-likeness)[:6]
        powers = np.exp(likeness[best] / D**0.5 / 2)
        with np.errstate(divide="ignore"):
            fits = np.log((powers * (stored.labels[best] == found.labels[t])).sum())
        np.testing.assert_allclose(masses.every[t], np.log(powers.sum()), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(masses.fits[t], fits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("by_distance", [False, True])
def test_faiss_finds_what_the_exact_search_finds(by_distance, monkeypatch):
    """Where all its cells are looked into."""
    pytest.importorskip("faiss", reason="the extra is not installed")
    rng = np.random.default_rng(0)
    keys, queries = rng.standard_normal((400, D)), rng.standard_normal((7, D))
    (one, places), (other, there) = (
        kind(keys, by_distance).nearest(queries, 20) for kind in (ExactIndex, FaissIndex)
    )
    np.testing.assert_allclose(np.sort(one), np.sort(other), atol=1e-4)
    np.testing.assert_array_equal(np.sort(places), np.sort(there))
    assert index_of(keys, by_distance).search == "exact"
    monkeypatch.setattr("workers.memory.nearest.EXACT", 100)
    assert index_of(keys, by_distance).search == "faiss"


def test_probabilities_sum_to_one():
    """Over the vocabulary at one position, both ways of joining a memory."""
    found = made()
    total = np.zeros((3, N))
    rng = np.random.default_rng(3)
    logits = rng.standard_normal(V).astype(np.float32)
    every = np.float32(np.log(np.exp(logits).sum()))
    for token in range(V):
        labels = found.labels.copy()
        labels[-1] = token
        right = np.full(N, logits[token])
        each = replace(found, labels=labels, right=right, losses=every - right)
        masses = earlier(each, each.g, 100, [1.0])[0]
        total[0] += np.exp(joint(each, masses))
        total[1] += np.exp(mixed(-each.losses, masses, 0.3))
        total[2] += np.exp(mixed(joint(each, masses), masses, 0.3))
    np.testing.assert_allclose(total[:, -1], 1, rtol=1e-5)


def test_without_a_memory_the_model_is_as_it_was():
    found = made()
    masses = earlier(found, found.g, None, [1.0])[0]
    none = np.arange(N) % T == 0
    assert (masses.every[none] == NOTHING).all() and np.isfinite(masses.every[~none]).all()
    for chances in (joint(found, masses), mixed(-found.losses, masses, 0.4)):
        np.testing.assert_allclose(chances[none], -found.losses[none], rtol=1e-6)
        assert (np.abs(chances + found.losses)[~none] > 1e-6).all()
    np.testing.assert_array_equal(mixed(-found.losses, masses, 0.0), -found.losses)


@pytest.mark.parametrize("name", list(MEMORIES))
def test_the_future_changes_no_earlier_probability(name):
    row, found, stored = MEMORIES[name], made(), made(1)
    index = index_of(stored.g, row.apart == "distance") if row.stored else None
    choice = Choice(
        None if row.shared == "none" else 1.0,
        None if row.apart == "nothing" else 1.0,
        None if row.apart == "nothing" else 0.3,
    )
    place, other = 13, made(2)
    mixture = {
        key: np.concatenate([getattr(found, key)[: place + 1], getattr(other, key)[place + 1 :]])
        for key in ("losses", "right", "states", "g", "labels")
    }
    one, two = (
        scores._chances(row, each, stored, index, choice)
        for each in (found, replace(found, **mixture))
    )
    np.testing.assert_allclose(one[: place + 1], two[: place + 1], rtol=1e-6)
    assert (one[place + 1 :] != two[place + 1 :]).all()
    with_memory = np.abs(one + found.losses) > 1e-6
    assert with_memory.any() == (name != "none")


@pytest.mark.parametrize("name", list(MEMORIES))
def test_the_choice_is_made_on_validation_alone(name):
    widths = {"validation": 1.0, "test": 1.0}
    first, second = (
        scores._score(MEMORIES[name], made(), made(seed), made(1), widths) for seed in (4, 5)
    )
    assert (first.choice, first.val_loss) == (second.choice, second.val_loss)
    assert first.test_loss != second.test_loss
    same = scores._score(MEMORIES[name], made(), made(), made(1), widths)
    assert same.test_loss == pytest.approx(same.val_loss, abs=1e-6)


@pytest.fixture(scope="module")
def few(tiny_task):
    return tiny_task.model_copy(update={"data": DataSpec(max_documents=4)})


def test_local_memory_is_what_trime_trains_for(few):
    """The engine's score of the objective, and the memory's at a temperature of 1, by two ways that
    share no code but the model's."""
    training = few.training.model_copy(update={"objective": "trime"})
    task = few.model_copy(update={"training": training})
    graph, tokens = build(SEED), load_tokens(few.data).validation
    values = [2 * each for each in initial_model(model_shape(graph, task.model, 256), seed=0)]
    found = contexts_of(graph, task, values, tokens, 8 * 16)
    masses = earlier(found, found.g, None, [1.0])[0]
    windows = np.lib.stride_tricks.sliding_window_view(tokens[: 8 * 16 + 1], 17)[::16]
    expected = make_engine(graph, values, task).score(windows.reshape(2, 4, 17))
    assert -joint(found, masses).mean() == pytest.approx(expected, abs=1e-5)
    assert found.losses.mean() != pytest.approx(expected, abs=1e-2)


def test_a_trained_model_is_scored_with_all_of_them(few, tmp_path):
    """Trained for the next token alone; `none` is the plain loss of the same positions."""
    file = tmp_path / "weights.npz"
    training = few.training.model_copy(update={"eval_batches": 8})
    task = few.model_copy(update={"training": training})
    evaluate(SEED, task, Budget("steps", 40), seed=1, weights=str(file))
    made = {row.memory: row for row in memory_scores(SEED, task, file, list(MEMORIES), 3000)}
    assert {row.positions for row in made.values()} == {8 * 4 * 16}
    entry = 16 * 4 + 4
    assert [made[name].bytes for name in ("none", "local", "knn")] == [0, 16 * entry, 2992 * entry]
    for name in ("external", "cache", "knn"):
        assert made[name].val_loss <= made["none" if name != "external" else "long"].val_loss + 1e-9
    assert made["knn"].test_loss < made["none"].test_loss - 0.05
    assert all(row.tokens_per_second > 0 for row in made.values())


def test_a_masked_model_is_refused(few, tmp_path):
    training = few.training.model_copy(update={"objective": "masked"})
    with pytest.raises(ValueError, match="memories are of next tokens, and the objective masked"):
        memory_scores(SEED, few.model_copy(update={"training": training}), tmp_path, ["none"])
