"""The kinds of positions, from training to a text that is longer than training's."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import ValidationError

from primitives.graph.build import Graph, build
from primitives.language.dna import DNA
from primitives.lowering.cost import Cost
from primitives.programs.seeds import load_seed, seed_names
from tests.reference.random_programs import LARGE_SEEDS, programs, routed_programs
from tests.workers.exports import load_module
from tests.workers.test_generate import assert_near, greedy, random_tokens, random_weights
from workers.export.blocks import why_not_stepwise
from workers.export.export import ExportError, export, trained_model
from workers.export.source import module_source, names
from workers.model.ends import embedding_and_head
from workers.model.model import logits, model_layers
from workers.model.shape import initial_model, model_shape
from workers.spec.fit import task_cost
from workers.spec.footprint import footprint
from workers.spec.identity import ADDED, identity
from workers.spec.outcome import Budget
from workers.spec.positions import POSITIONS, Kind
from workers.spec.task import DataSpec, ModelSpec, Task, TrainingSpec
from workers.training.evaluate import evaluate

LENGTH = 12
ENDLESS = [kind for kind, row in POSITIONS.items() if not row.bounded]
CAUSAL = [it for it in seed_names() if isinstance(build(load_seed(it, 16)), Graph)]
OFTEN = ("transformer", "primer", "hash_layer", "prefix_mean")


def task_with(kind: Kind, layers: int = 2) -> Task:
    spec = ModelSpec(d_model=16, layers=layers, sequence_length=LENGTH, positions=kind)
    training = TrainingSpec(batch_size=4, eval_batches=2)
    return Task(data=DataSpec(max_documents=40), model=spec, training=training)


@cache
def graph_of(dna: DNA) -> Graph:
    graph = build(dna)
    assert isinstance(graph, Graph)
    return graph


def source(dna: DNA, task: Task) -> str:
    return module_source(dna, graph_of(dna), task, 256, names("it"), {"Program": "it"})


def made(dna: DNA, task: Task, **sizes: Any) -> Any:
    return random_weights(load_module(source(dna, task)).build_model(**sizes))


def test_every_kind_of_the_config_has_a_row() -> None:
    assert set(get_args(Kind)) == set(POSITIONS) and ModelSpec().positions == "learned"
    with pytest.raises(ValidationError, match="'learned', 'sinusoidal', 'rotary' or 'none'"):
        ModelSpec(positions="alibi")  # type: ignore[arg-type]


def loss_after(task: Task, steps: int, seed: int = 3) -> float:
    outcome = evaluate(load_seed("transformer", 16), task, Budget("steps", steps), seed)
    assert outcome.status == "completed" and outcome.val_loss is not None
    return outcome.val_loss


@cache
def on_tensorflow(kind: Kind) -> float:
    return loss_after(task_with(kind), 6)


def test_each_kind_trains_another_model() -> None:
    losses = {kind: on_tensorflow(kind) for kind in POSITIONS}
    assert len({round(loss, 5) for loss in losses.values()}) == len(POSITIONS), losses
    assert max(losses.values()) < np.log(256) + 1.0


@pytest.mark.parametrize("kind", POSITIONS)
def test_weights_cost_and_memory_are_those_that_there_are(kind: Kind) -> None:
    dna, task = load_seed("transformer", 16), task_with(kind)
    shape = model_shape(graph_of(dna), task.model, 256)
    count = sum(values.size for values in initial_model(shape, 0))
    cost, learned = (task_cost(graph_of(dna), each, 256) for each in (task, task_with("learned")))
    assert count == cost.parameters == cost.active_parameters
    assert learned.parameters - count == (0 if kind == "learned" else LENGTH * 16)
    assert ("positions" in shape.names) == (kind == "learned")
    more = turned(dna, task) if kind == "rotary" else 0
    assert cost.flops_per_token - learned.flops_per_token == 3 * more
    assert cost.activation_bytes - learned.activation_bytes == 4 * LENGTH * more
    total = footprint(graph_of(dna), task, 256).total
    assert (total > footprint(graph_of(dna), task_with("none"), 256).total) == (
        kind in ("learned", "rotary")
    )


def turned(dna: DNA, task: Task) -> int:
    """Queries and keys of each token: one state of d_model each, in every layer."""
    return 2 * task.model.d_model * task.model.layers


def test_routed_programs_cost_a_little_more_with_rotary_positions() -> None:
    for name in ("switch", "peer"):
        costs: list[Cost] = []
        for kind in ("none", "rotary"):
            costs.append(task_cost(graph_of(load_seed(name, 16)), task_with(kind), 256))  # type: ignore[arg-type]
        assert costs[1].flops_per_token - costs[0].flops_per_token == 3 * 2 * 16 * 2
        assert costs[1].parameters == costs[0].parameters


@pytest.mark.parametrize("kind", ENDLESS)
@pytest.mark.parametrize(
    "name",
    [pytest.param(it, marks=[pytest.mark.slow] * (it not in OFTEN)) for it in CAUSAL],
)
def test_steps_beyond_the_trained_length_are_those_of_a_whole_pass(name: str, kind: Kind) -> None:
    layers = 1 if name in LARGE_SEEDS else 2
    model = made(load_seed(name, 16), task_with(kind, layers))
    length = 2 * LENGTH + 5
    tokens = random_tokens(2, length)
    whole = np.array(model(tokens))
    kept, start = model.cache(2, length), 0
    for count in (LENGTH + 2, 1, 1, length - LENGTH - 4):
        new, kept = model.step(tokens[:, start : start + count], kept, start)
        expected = whole[:, start : start + count]
        assert_near(new, expected)
        start += count


@cache
def random_causal() -> list[DNA]:
    return [*programs(60, seed=17), *routed_programs(12, seed=17)]


@pytest.mark.parametrize(
    ("kind", "count"),
    [(kind, 4) for kind in ENDLESS]
    + [pytest.param(kind, 40, marks=pytest.mark.slow) for kind in ENDLESS],
)
def test_random_programs_step_beyond_the_trained_length(kind: Kind, count: int) -> None:
    """In an exported module, with every weight random; those that magnify roundings say nothing."""
    rng, task, equal = random.Random(f"{kind} {count}"), task_with(kind, 1), 0
    length = 2 * LENGTH
    for dna in rng.sample(random_causal(), count):
        if why_not_stepwise(graph_of(dna), task):
            continue
        model, tokens = made(dna, task), random_tokens(2, length)
        whole = np.array(model(tokens))
        if not np.isfinite(whole).all() or is_chaotic(model, tokens, whole):
            continue
        kept, found, start = model.cache(2, length), [], 0
        for part in (LENGTH + 1, 1, length - LENGTH - 2):
            new, kept = model.step(tokens[:, start : start + part], kept, start)
            found.append(np.array(new))
            start += part
        size = max(1.0, float(np.abs(whole).max()))
        np.testing.assert_allclose(np.concatenate(found, 1), whole, rtol=1e-4, atol=1e-5 * size)
        equal += 1
    assert equal >= count / 4, equal


def is_chaotic(model: Any, tokens: np.ndarray, whole: np.ndarray) -> bool:
    """Whether weights that differ by a rounding give other logits."""
    before = model.get_weights()
    model.set_weights([weight * np.float32(1 + 1e-6) for weight in before])
    near = np.array(model(tokens))
    model.set_weights(before)
    return not np.allclose(near, whole, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(whole).max()))


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_longer_text_is_that_of_whole_passes(kind: Kind) -> None:
    model, tokens = made(load_seed("transformer", 16), task_with(kind, 1)), random_tokens(2, 5)
    count = LENGTH + 6
    expected = greedy(model, tokens, count)
    for use_cache in (True, False):
        found = model.generate(tokens, count, temperature=0, use_cache=use_cache)
        np.testing.assert_array_equal(found, expected)
    windows = model.generate(tokens, count, temperature=0, sliding=True)
    np.testing.assert_array_equal(windows[:, : LENGTH + 1], expected[:, : LENGTH + 1])


def test_a_long_prompt_is_read_in_parts_where_it_copies_experts() -> None:
    plain, routed = (
        source(load_seed(name, 16), task_with("rotary")) for name in ("transformer", "switch")
    )
    assert "for start in range" not in plain and "for start in range" in routed
    model = made(load_seed("switch", 16), task_with("rotary", 1))
    tokens = random_tokens(1, 2 * LENGTH)
    found = model.generate(tokens, 4, temperature=0)
    np.testing.assert_array_equal(found, greedy(model, tokens, 4))


def test_the_whole_text_counts_beyond_the_trained_length() -> None:
    """The first token is still seen where windows would have forgotten it."""
    model = made(load_seed("transformer", 16), task_with("rotary", 1))
    tokens = random_tokens(1, 3 * LENGTH)
    other = tokens.copy()
    other[0, 0] = (tokens[0, 0] + 1) % 256
    assert np.abs(np.array(model(tokens) - model(other)))[0, -1].max() > 1e-6


@pytest.mark.parametrize("kind", POSITIONS)
def test_an_exported_model_is_the_trained_one(kind: Kind, tmp_path: Path) -> None:
    """Its logits are those of the search's model, and the card says so of its score."""
    dna, task = load_seed("primer_ez", 16), task_with(kind)
    shape = model_shape(graph_of(dna), task.model, 256)
    start, rng = initial_model(shape, 1), np.random.default_rng(1)
    values = [value + 0.1 * rng.standard_normal(value.shape, np.float32) for value in start]
    weights = dict(zip(shape.names, values, strict=True))
    tokens = random_tokens(3, LENGTH)
    layers, outer = model_layers(graph_of(dna), task), embedding_and_head(task.model)
    expected = np.asarray(logits(layers, values, tokens, False, None, outer)[0])
    np.savez(tmp_path / "weights.npz", **weights)
    model = trained_model(dna, task, tmp_path / "weights.npz")
    np.testing.assert_allclose(np.array(model(tokens)), expected, rtol=1e-5, atol=1e-5)
    text = source(dna, task)
    assert POSITIONS[kind].about.split()[0] in " ".join(text.split())
    assert ("sequence_length, d_model, normal" in text) == POSITIONS[kind].bounded
    if kind == "learned":
        with pytest.raises(ValueError, match="only 12 positions"):
            model(random_tokens(1, LENGTH + 1))
        with pytest.raises(ValueError, match="pass sliding=True"):
            model.generate([1], LENGTH + 1)
    else:
        assert model(random_tokens(1, LENGTH + 1)).shape[1] == LENGTH + 1
    others = task.model_copy(update={"model": task_with("none").model})
    if kind == "learned":
        with pytest.raises(ExportError, match="'positions' has shape"):
            export(dna, tmp_path / "out", task=others, weights=weights, card={"program": "it"})


def test_positions_reach_the_other_blocks() -> None:
    spaced = replace(load_seed("switch", 16), every=2)
    text = module_source(spaced, build(spaced), task_with("rotary"), 256, names("it"), {})  # type: ignore[arg-type]
    one, other = text.split("class OtherBlock")
    assert "rotated(" in one.partition("class ItBlock")[2] and "rotated(" in other


def test_bfloat16_keeps_angles_exact() -> None:
    task = task_with("rotary", 1)
    rough = made(load_seed("transformer", 16), task, dtype="mixed_bfloat16")
    exact = made(load_seed("transformer", 16), task)
    tokens = random_tokens(1, 400)
    assert rough(tokens).dtype == "bfloat16"
    differ = np.abs(np.array(rough(tokens)).astype("float32") - np.array(exact(tokens)))
    assert differ[0, 300:].mean() < 2 * differ[0, :100].mean() + 0.02


def test_a_task_of_an_earlier_version_is_the_same_task() -> None:
    """Tasks without the key are those of today that learn positions; runs of studies are found."""
    from search.study.setting import Setting

    now = Task(model=SIZES).model_dump(mode="json")
    then = json.loads(json.dumps(now))
    for part, key in ADDED:
        del then[part][key]
    assert identity(now) == identity(then) == then
    assert Task.model_validate_json(json.dumps(then)).model.positions == "learned"
    other = Task(model=ModelSpec(d_model=64, layers=3, positions="none"))
    assert identity(other.model_dump(mode="json"))["model"]["positions"] == "none"
    budget = Budget("steps", 100.0, points=(50.0,))
    settings = (Setting(each, budget, (1, 2)) for each in (Task(model=SIZES), other))
    known, another = (each.key("ab" * 16, 7) for each in settings)
    assert known == EARLIER_KEY != another


SIZES = ModelSpec(d_model=64, layers=3)
EARLIER_KEY = "37869ca9cad84ddbf62bdaeb73d01675f5226a60419499961d8de67d62309fd8"
"""What the version before positions could be chosen called this run."""


JAX = """
import json
from tests.workers.test_positions import loss_after, task_with
from workers.spec.positions import POSITIONS
found = {}
for kind in POSITIONS:
    task = task_with(kind)
    training = task.training.model_copy(update={"backend": "jax"})
    found[kind] = loss_after(task.model_copy(update={"training": training}), 6)
print(json.dumps(found))
"""


@pytest.mark.slow
def test_jax_trains_the_same_models(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    result = subprocess.run(
        [sys.executable, "-c", JAX], env=environment, capture_output=True, text=True, timeout=280,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    found = json.loads(result.stdout.splitlines()[-1])
    for kind, loss in found.items():
        assert loss == pytest.approx(on_tensorflow(kind), abs=1e-4), kind
