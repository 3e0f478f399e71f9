"""Layers that have the same weights (ALBERT, Lan et al. 2020, section 3.1): a task's option."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from primitives import DNA, Graph
from primitives.language.dna import MIDDLE
from primitives.programs.seeds import load_seed
from tests.reference.blocks import BLOCKS
from workers.export.export import export, trained_model
from workers.model.model import logits, model_layers, outer_count, through
from workers.model.packed import pack_blocks, unpack_blocks
from workers.model.shape import initial_model, model_shape
from workers.pruning.pruning import PruningError, Settings, prune
from workers.pruning.target import Target
from workers.spec.fit import task_cost, task_graph
from workers.spec.identity import identity
from workers.spec.outcome import Budget
from workers.spec.task import DataSpec, ModelSpec, Task, TrainingSpec
from workers.training.evaluate import evaluate

WIDTH, LENGTH, VOCABULARY = 16, 12, 256


def task(layers: int = 3, share: bool = True, **training: Any) -> Task:
    model = ModelSpec(d_model=WIDTH, layers=layers, sequence_length=LENGTH, share_layers=share)
    return Task(
        data=DataSpec(max_documents=40),
        model=model,
        training=TrainingSpec(batch_size=4, eval_batches=2, **training),
    )


def graph_of(dna: DNA, of: Task) -> Graph:
    graph = task_graph(dna, of)
    assert isinstance(graph, Graph)
    return graph


def test_it_is_the_papers_block_again_and_again() -> None:
    """Logits of four layers against the reference's block, run four times with one set of
    weights, with the model around it written once more."""
    dna, four = load_seed("transformer", WIDTH), task(4)
    graph = graph_of(dna, four)
    shape = model_shape(graph, four.model, VOCABULARY)
    rng = np.random.default_rng(0)
    values = [
        value + 0.1 * rng.standard_normal(value.shape).astype("float32")
        for value in initial_model(shape, 0)
    ]
    layers = model_layers(graph, four)
    tokens = rng.integers(0, VOCABULARY, (2, LENGTH))
    made, _ = logits(layers, values, tokens, False, None)
    embedding, positions, scale, shift, *block = map(ops.convert_to_tensor, values)
    reference, labels = BLOCKS["transformer"]
    weights = dict(zip(labels, block, strict=True))
    x = ops.take(embedding, tokens, axis=0) + positions
    for _ in range(4):
        x = reference(x, weights)
    normed = keras.layers.LayerNormalization(epsilon=1e-6, center=False, scale=False)(x)
    expected = (normed * scale + shift) @ ops.transpose(embedding)
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "every", "sets"), [("transformer", 1, 1), ("switch", 2, 2)])
def test_weights_are_counted_once(name: str, every: int, sets: int) -> None:
    dna = replace(load_seed(name, WIDTH), every=every)
    shared, own = task(4), task(4, share=False)
    graph = graph_of(dna, shared)
    one, apart = (model_shape(graph, each.model, VOCABULARY) for each in (shared, own))
    assert [bool(block) for block in one.blocks].count(True) == sets
    trained = sum(
        value.size
        for value, trains in zip(initial_model(one, 0), one.trainable, strict=True)
        if trains
    )
    costs = [task_cost(graph, each, VOCABULARY) for each in (shared, own)]
    assert costs[0].parameters == trained < costs[1].parameters
    assert costs[0].flops_per_token == costs[1].flops_per_token
    assert costs[0].activation_bytes == costs[1].activation_bytes
    assert set(one.names) < set(apart.names)


def test_weights_are_packed_once() -> None:
    dna, of = replace(load_seed("expert_threshold", WIDTH), every=2), task(4)
    graph = graph_of(dna, of)
    values = initial_model(model_shape(graph, of.model, VOCABULARY), 0)
    layers = model_layers(graph, of)
    assert [layer.again for layer in layers] == [None, None, 0, 1]
    assert outer_count(layers, values) == 4
    packed = pack_blocks(layers, values)
    assert len(packed) < len(values)
    for value, again in zip(values, unpack_blocks(layers, packed), strict=True):
        np.testing.assert_array_equal(value, again)


def trained(dna: DNA, of: Task, path: Path, steps: int = 6) -> dict[str, np.ndarray]:
    outcome = evaluate(dna, of, Budget("steps", steps), 1, weights=path)
    assert outcome.status == "completed" and outcome.val_loss is not None
    return {"loss": np.array(outcome.val_loss), **np.load(path)}


@pytest.mark.parametrize("jit", ["off", "on"])
def test_a_model_trains_its_one_set(jit: str, tmp_path: Path) -> None:
    """As a plain graph, which packs blocks, and under XLA."""
    dna = load_seed("transformer", WIDTH)
    found = trained(dna, task(jit=jit), tmp_path / "shared.npz")
    apart = trained(dna, task(share=False, jit=jit), tmp_path / "own.npz")
    assert abs(found["loss"] - apart["loss"]) > 1e-4
    assert not [name for name in found if name.startswith("blocks/1/")]


def test_both_ways_of_training_agree(tmp_path: Path) -> None:
    dna = load_seed("transformer", WIDTH)
    one, other = (trained(dna, task(jit=jit), tmp_path / jit) for jit in ("off", "on"))
    assert one["loss"] == pytest.approx(other["loss"], abs=1e-4)


def test_a_state_goes_to_the_mean_of_where_its_layers_move_it() -> None:
    """A balancing bias in two layers that share it: each moves it by at most the rate."""
    dna, of = load_seed("deepseek", WIDTH), task(2)
    graph = graph_of(dna, of)
    layers = model_layers(graph, of)
    shape = model_shape(graph, of.model, VOCABULARY)
    values = initial_model(shape, 0)
    rng = np.random.default_rng(0)
    x = ops.convert_to_tensor(rng.standard_normal((4, LENGTH, WIDTH)), "float32")
    tokens = rng.integers(0, VOCABULARY, (4, LENGTH))
    seed = ops.zeros(2, "int32")
    first = outer_count(layers, values)
    own = values[first:]
    moved, at = [], x
    for number, layer in enumerate(layers):
        at, more = layer.train(at, own, tokens, seed + ops.convert_to_tensor([number << 24, 0]))
        moved.append(more.updates)
    _, auxiliary = through(layers, values, x, tokens, True, seed)
    names_of = [spec.name for spec in layers[0].specs]
    assert auxiliary.updates
    for place, value in auxiliary.updates.items():
        name = names_of[place - first]
        np.testing.assert_allclose(value, (moved[0][name] + moved[1][name]) / 2, atol=1e-7)


@pytest.mark.parametrize(("name", "every"), [("transformer", 1), ("switch", 2), ("switch", MIDDLE)])
def test_an_exported_model_has_the_same_logits(name: str, every: int, tmp_path: Path) -> None:
    dna, of = replace(load_seed(name, WIDTH), every=every), task(4)
    path = tmp_path / "weights.npz"
    arrays = trained(dna, of, path, 3)
    graph = graph_of(dna, of)
    shape = model_shape(graph, of.model, VOCABULARY)
    values = [arrays[label] for label in shape.names]
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, (2, LENGTH))
    expected, _ = logits(model_layers(graph, of), values, tokens, False, ops.zeros(2, "int32"))
    model = trained_model(dna, of, path)
    np.testing.assert_allclose(model(tokens), expected, rtol=1e-4, atol=1e-5)
    assert len({id(block) for block in model.blocks}) == (1 if every == 1 else 2)
    assert model.count_params() == sum(value.size for value in values)
    prompt = np.zeros((1, 3), "int32")
    written = model.generate(prompt, 4, temperature=0.0)
    np.testing.assert_array_equal(
        written, model.generate(prompt, 4, temperature=0.0, use_cache=False)
    )
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(tokens), expected, rtol=1e-4, atol=1e-5)


def test_an_export_says_that_layers_share(tmp_path: Path) -> None:
    dna, of = load_seed("transformer", WIDTH), task(2)
    values = initial_model(shape := model_shape(graph_of(dna, of), of.model, VOCABULARY), 0)
    weights = dict(zip(shape.names, values, strict=True))
    export(dna, tmp_path / "out", task=of, weights=weights, card={"program": "albert"})
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["task"]["model"]["share_layers"] is True
    source = next((tmp_path / "out").glob("*_block.py")).read_text()
    assert "times with the same weights" in " ".join(source.split())


def test_runs_from_before_the_option_are_found() -> None:
    """And those with it are others."""
    shared, own = (identity(task(share=each).model_dump(mode="json")) for each in (True, False))
    assert shared["model"]["share_layers"] is True and "share_layers" not in own["model"]


def test_pruning_gives_each_layer_a_size_of_its_own() -> None:
    dna, of = load_seed("transformer", WIDTH), task(2)
    graph = graph_of(dna, of)
    values = initial_model(model_shape(graph, of.model, VOCABULARY), 0)
    settings = Settings(Target("parameters", 0.5), 2, 0)
    with pytest.raises(PruningError, match="layers of this model share their weights"):
        prune(graph, of, values, settings)


JAX = """
from tests.workers.test_share_layers import grouped_queries_in_layers_that_share
print("loss", grouped_queries_in_layers_that_share("jax"))
"""


def grouped_queries_in_layers_that_share(backend: str) -> float:
    of = task(backend=backend)
    outcome = evaluate(load_seed("grouped_query", WIDTH), of, Budget("steps", 6), 1)
    assert outcome.val_loss is not None, outcome
    return outcome.val_loss


@pytest.mark.slow
def test_jax_trains_the_same_model() -> None:
    pytest.importorskip("jax", reason="the jax extra is not installed")
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    made = subprocess.run(
        [sys.executable, "-c", JAX], env=environment, capture_output=True, text=True, check=True
    )
    loss = float(made.stdout.rpartition("loss ")[2])
    assert loss == pytest.approx(grouped_queries_in_layers_that_share("tensorflow"), abs=1e-4)
