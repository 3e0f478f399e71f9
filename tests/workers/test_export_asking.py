"""Exported programs that ask more of a trainer: a step of `fit` against the gradient that a
candidate's step takes, with the same draws."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from primitives.graph.build import build
from primitives.language.dna import DNA
from primitives.language.text import parse
from primitives.programs.seeds import load_seed
from tests.workers.test_export import load_module
from workers.export.export import variables_of
from workers.export.source import module_source, names
from workers.model.learning import training_loss
from workers.model.model import model_layers, prepared
from workers.model.shape import initial_model, model_shape
from workers.spec.objectives import OBJECTIVES
from workers.spec.task import ModelSpec, Task, TrainingSpec

ALL = parse("""
dims d0=8
constants c0=0.3 c1=0.5 c2=2.0
counts n0=4 n1=1

main(x, y):
  scores = SCORE(x) count=n0
  noise = NOISE(scores)
  noisy = ADD(scores, noise)
  chosen = TOP_K(noisy) count=n1
  small = Z_LOSS(chosen) constant=c0
  steps = STEPS(x)
  aged = C MUL(steps) constant=c0
  taken = ADD(small, aged)
  foreseen = SCORE(x) count=n1
  judged = REINFORCE(taken, small) constant=c0
  known = BASELINE(judged, foreseen) constant=c1
  gates = CONSISTENCY(known) constant=c2
  fed = expert(x, gates) branch=routed
  out = ADD(x, fed)

expert(x, y):
  out = CONV 1X1(x) dim=d0
""")
"""Everything that may be asked for, an auxiliary loss, and a state that gates follow."""

CASES = {
    "reinforce": (load_seed("reinforce", 16), "next_token"),
    "reinforce_baseline": (load_seed("reinforce_baseline", 16), "next_token"),
    "thor": (load_seed("thor", 16), "next_token"),
    "all": (ALL, "masked"),
}

SHAPE = (3, 13)


def small(objective: str) -> Task:
    return Task(
        model=ModelSpec(d_model=16, layers=2, sequence_length=SHAPE[1] - 1),
        training=TrainingSpec(batch_size=SHAPE[0], objective=objective),
    )


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> Counter[Any]:
    """Draws that follow from their shape and from how many of it there were, which this counts."""
    import keras

    count: Counter[Any] = Counter()

    def drawn(shape: Any, dtype: Any = "float32", seed: Any = None) -> Any:
        shape = tuple(int(size) for size in shape)
        count[shape] += 1
        rng = np.random.default_rng([*shape, count[shape]])
        return keras.ops.convert_to_tensor(rng.random(shape), dtype or "float32")

    monkeypatch.setattr(keras.random, "uniform", drawn)
    monkeypatch.setattr(keras.random, "normal", drawn)
    return count


def made_model(dna: DNA, task: Task) -> tuple[Any, dict[str, Any]]:
    """The exported model and its variables, which hold start values."""
    objective = OBJECTIVES[task.training.objective]
    graph, rows = build(dna, objective.bidirectional), 256 + objective.extra_rows
    source = module_source(dna, graph, task, rows, names("it"), {})
    model, shape = load_module(source).build_model(), model_shape(graph, task.model, rows)
    named = variables_of(model)
    for name, value in zip(shape.names, initial_model(shape, 1), strict=True):
        named[name].assign(value)
    return model, {name: named[name] for name in shape.names}


def stepped(model: Any, tokens: Any, targets: Any, counts: Any, eager: bool = True) -> float:
    """One step of `fit` by plain gradient descent at a rate of 1; the loss that it reports."""
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="mean_with_sample_weight"
    )
    model.compile(keras.optimizers.SGD(1.0), loss, run_eagerly=eager)
    weights = None if counts is None else np.asarray(counts)
    data = np.asarray(tokens), np.asarray(targets)
    found = model.fit(*data, sample_weight=weights, shuffle=False, verbose=0)
    return float(found.history["loss"][0])


@pytest.mark.parametrize("name", CASES)
def test_a_step_of_fit_is_a_candidates(name: str, draws: Counter[Any]) -> None:
    import tensorflow as tf

    dna, kind = CASES[name]
    task, objective = small(kind), OBJECTIVES[kind]
    model, named = made_model(dna, task)
    weights = [tf.convert_to_tensor(variable.value) for variable in named.values()]
    layers = model_layers(build(dna, objective.bidirectional), task)
    windows, seed = np.random.default_rng(0).integers(0, 256, SHAPE), tf.zeros(2, tf.int32)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        total, _, states = training_loss(layers, weights, windows, seed, objective)
    found = tape.gradient(total, weights, unconnected_gradients="zero")
    expected = [np.asarray(tf.convert_to_tensor(gradient)) for gradient in found]
    draws.clear()
    batch, _ = prepared(windows, int(weights[0].shape[0]), seed, objective)
    assert stepped(model, batch.tokens, batch.targets, batch.counts) == pytest.approx(
        float(total), rel=1e-5
    )
    for place, (label, variable) in enumerate(named.items()):
        before, after = weights[place].numpy(), np.asarray(variable)
        wanted = states[place] if place in states else before - expected[place]
        np.testing.assert_allclose(after, wanted, atol=2e-6, err_msg=label)
    router = [place for place, label in enumerate(named) if label.endswith("scores_score")]
    assert name == "thor" or all(np.any(expected[place]) for place in router)


def test_other_layers_say_that_nothing_is_asked_of_them() -> None:
    """A program in every second block alone, in a compiled step."""
    model, _ = made_model(replace(ALL, every=2), small("next_token"))
    tokens = np.random.default_rng(0).integers(0, 256, SHAPE)
    stepped(model, tokens[:, :-1], tokens[:, 1:], None, eager=False)
    assert model.asked == ()
    assert {type(block).__name__ for block in model.blocks} == {"ItBlock", "OtherBlock"}


JAX = """
import json, sys
import numpy as np
from tests.workers.test_export_asking import ALL, SHAPE, made_model, small, stepped
model, named = made_model(ALL, small("next_token"))
tokens = np.random.default_rng(0).integers(0, 256, SHAPE)
before = {name: np.asarray(each) for name, each in named.items()}
loss = stepped(model, tokens[:, :-1], tokens[:, 1:], None, eager=False)
steps = [float(np.sum(each)) for name, each in named.items() if name.endswith("steps")]
moved = [bool(np.any(np.asarray(each) != before[name])) for name, each in named.items()]
print(json.dumps([loss, steps, all(moved)]))
"""


@pytest.mark.slow
def test_fit_does_it_on_jax_too() -> None:
    """Compiled: finite, every weight moves, and states follow one of two passes."""
    pytest.importorskip("jax")
    run = subprocess.run(
        [sys.executable, "-c", JAX], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    loss, steps, moved = json.loads(run.stdout.splitlines()[-1])
    assert np.isfinite(loss) and steps == [1.0, 1.0] and moved


@pytest.mark.parametrize(("coefficient", "asked"), [(0.0, False), (-0.5, True), (2.0, True)])
def test_what_is_asked_for_is_there_and_nothing_else(coefficient: float, asked: bool) -> None:
    """A mutation may make a coefficient 0, which asks for nothing, or negative."""
    thor = CASES["thor"][0]
    dna = replace(thor, constants=(coefficient,) * len(thor.constants))
    graph = build(dna)
    task = Task(model=ModelSpec(d_model=16, layers=1, sequence_length=8))
    source = module_source(dna, graph, task, 256, names("x"), {})  # type: ignore[arg-type]
    assert ("def compute_loss" in source) == asked == ("def disagreement" in source)
    assert "for: ." not in source
