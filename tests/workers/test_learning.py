"""What a training step takes the gradient of, where blocks ask something of the trainer: against
the same in NumPy, from what each pass leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from primitives.graph.build import Graph, build
from primitives.language.dna import DNA
from primitives.language.text import parse, render
from primitives.lowering.cost import training_passes
from primitives.programs.seeds import load_seed
from tests.primitives.seed_parts import close
from workers.model.learning import SECOND_PASS, training_loss
from workers.model.model import logits, model_layers, prepared, token_losses
from workers.model.shape import initial_model, model_shape
from workers.spec.fit import task_cost
from workers.spec.footprint import footprint
from workers.spec.objectives import MASKED, NEXT_TOKEN
from workers.spec.outcome import Budget
from workers.spec.task import DataSpec, ModelSpec, Task, TrainingSpec
from workers.training.evaluate import evaluate

WINDOWS = np.random.default_rng(0).integers(0, 256, (4, 13)).astype("int32")
SEED = tf.constant([3, 1], tf.int32)


def small(layers: int = 2, **training: Any) -> Task:
    return Task(
        data=DataSpec(max_documents=20),
        model=ModelSpec(d_model=16, layers=layers, sequence_length=12),
        training=TrainingSpec(batch_size=4, eval_batches=2, **training),
    )


class Model:
    """A program's model with start values, as tensors."""

    def __init__(self, dna: DNA, task: Task, rows: int = 256) -> None:
        graph = build(dna)
        assert isinstance(graph, Graph)
        self.layers, shape = model_layers(graph, task), model_shape(graph, task.model, rows)
        self.names = shape.names
        self.weights = [tf.constant(value) for value in initial_model(shape, 1)]

    def places(self, ending: str) -> list[int]:
        return [place for place, name in enumerate(self.names) if name.endswith(ending)]

    def gradients(self, of: Iterable[int], total: Any) -> list[np.ndarray]:
        with tf.GradientTape() as tape:
            tape.watch(self.weights)
            made = total()
        found = tape.gradient(made, self.weights, unconnected_gradients="zero")
        return [np.asarray(found[place]) for place in of]


def test_a_learned_baseline_is_taken_from_the_reward_and_learns_it() -> None:
    """The gradients of routers are those of -c log p (r - mean r - b), of baselines those of
    (r - mean r - b)^2: computed from each pass' own numbers."""
    model = Model(load_seed("reinforce_baseline", 16), small())
    routers, foreseers = model.places("scores_score"), model.places("foreseen_score")
    made = model.gradients(
        [*routers, *foreseers],
        lambda: training_loss(model.layers, model.weights, WINDOWS, SEED, NEXT_TOKEN)[0],
    )

    def expected() -> Any:
        losses, _, left = token_losses(model.layers, model.weights, WINDOWS, True, SEED, NEXT_TOKEN)
        reward = -losses.numpy()
        better = reward - reward.mean()
        total = 0.0
        for chances, (foreseen, weight) in zip(left.policies, left.baselines, strict=True):
            total -= tf.reduce_mean(chances * (better - foreseen.numpy()))
            total += weight * tf.reduce_mean((better - foreseen) ** 2)
        return total

    wanted = model.gradients([*routers, *foreseers], expected)
    assert len(routers) == len(foreseers) == 2
    for mine, theirs in zip(made, wanted, strict=True):
        assert np.abs(theirs).max() > 0
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


@pytest.mark.parametrize("objective", [NEXT_TOKEN, MASKED])
def test_two_passes_are_to_agree(objective: Any) -> None:
    """THOR: CE(p) + CE(q) + alpha (KL(p, q) + KL(q, p)) / 2, the same positions hidden in both."""
    task = small(objective=objective.name)
    model = Model(load_seed("thor", 16), task, 256 + objective.extra_rows)
    total, loss, _ = training_loss(model.layers, model.weights, WINDOWS, SEED, objective)
    batch, tokens = prepared(WINDOWS, model.weights[0].shape[0], SEED, objective)
    counts = np.ones(batch.targets.shape) if batch.counts is None else np.asarray(batch.counts)
    share, chances, entropies = counts / counts.sum(), [], []
    for more in (0, SECOND_PASS):
        seed = SEED + tf.constant([0, more])
        scores = logits(model.layers, model.weights, tokens, True, seed)[0].numpy()
        powers = np.exp(scores.astype(np.float64) - scores.max(-1, keepdims=True))
        p = powers / powers.sum(-1, keepdims=True)
        chosen = np.take_along_axis(p, np.asarray(batch.targets)[..., None], -1)[..., 0]
        chances.append(p)
        entropies.append(-(share * np.log(chosen)).sum())
    p, q = chances
    apart = (share * ((p - q) * (np.log(p) - np.log(q))).sum(-1) / 2).sum()
    assert apart > 1e-4 and entropies[0] != entropies[1]
    assert close(np.array(total), np.array(sum(entropies) + 5.0 * apart))
    assert close(np.array(loss), np.mean(entropies))


def test_a_step_of_two_passes_is_charged_for_both() -> None:
    """As many FLOPs give half the steps, and twice the activations are held."""
    thor, once = load_seed("thor", 16), load_seed("random_expert", 16)
    task, graphs = small(1), [build(dna) for dna in (thor, once)]
    assert [training_passes(graph) for graph in graphs] == [2, 1]
    flops = 3 * task_cost(graphs[1], task, 256).flops_per_token * 4 * 12
    steps = [evaluate(dna, task, Budget("flops", 8.4 * flops), 1).steps for dna in (thor, once)]
    assert steps == [5, 9]
    held = [
        {term.name: term.bytes for term in footprint(graph, task, 256).terms} for graph in graphs
    ]
    assert held[0]["activations"] > 1.9 * held[1]["activations"]


JOINT = render(load_seed("remoe_joint", 16))


@pytest.mark.parametrize("every", [1, 2])
def test_layers_steer_one_coefficient(every: int) -> None:
    """The powers of all layers of a program stay equal, and move by the sign of the layers' mean
    share of open gates less k/n."""
    dna = parse(JOINT if every == 1 else JOINT.replace("\n\nmain", f"\nevery {every}\n\nmain"))
    model = Model(dna, small(4))
    powers = model.places("sparsity_loss")
    assert len(powers) == 4 // every
    for place in powers:
        model.weights[place] = model.weights[place] + 3.0
    _, _, alone = token_losses(model.layers, model.weights, WINDOWS, True, SEED, NEXT_TOKEN)
    updates = training_loss(model.layers, model.weights, WINDOWS, SEED, NEXT_TOKEN)[2]
    mean = np.mean([np.asarray(alone.together[place]) for place in powers])
    assert {*updates} == {*powers} == {*alone.together}
    for place in powers:
        np.testing.assert_allclose(updates[place], 3.0 + np.sign(mean))


def test_the_mean_decides_and_not_each_layer() -> None:
    """One layer with few open gates and one with many: alone they would move apart."""
    model = Model(parse(JOINT), small(2))
    powers, (first, _) = model.places("sparsity_loss"), model.places("scores_score")
    closed = model.weights[first].numpy()
    closed[:, 1:] = 0.0  # one expert in eight, for half of the tokens
    model.weights[first] = tf.constant(closed)
    _, _, alone = token_losses(model.layers, model.weights, WINDOWS, True, SEED, NEXT_TOKEN)
    few, many = (float(alone.together[place][0]) for place in powers)
    assert few < 0 < many and few + many > 0
    own = [float(alone.updates[place][0]) for place in powers]
    updates = training_loss(model.layers, model.weights, WINDOWS, SEED, NEXT_TOKEN)[2]
    assert own == [-1.0, 1.0] and [float(updates[place][0]) for place in powers] == [1.0, 1.0]


ASKING = ("reinforce_baseline", "thor", "remoe_joint", "dense_to_sparse")


@pytest.mark.slow
@pytest.mark.parametrize("name", ASKING)
def test_they_train(name: str) -> None:
    made = evaluate(load_seed(name, 16), small(), Budget("steps", 3), 1)
    assert made.status == "completed", made.reason


JAX = """
import json
from tests.workers.test_learning import ASKING, small
from primitives.programs.seeds import load_seed
from workers.spec.outcome import Budget
from workers.training.evaluate import evaluate
made = {n: evaluate(load_seed(n, 16), small(backend="jax"), Budget("steps", 3), 1) for n in ASKING}
print(json.dumps({n: [it.status, it.val_loss] for n, it in made.items()}))
"""


@pytest.mark.slow
def test_they_train_on_jax() -> None:
    """To the same loss where nothing is drawn."""
    pytest.importorskip("jax")
    run = subprocess.run(
        [sys.executable, "-c", JAX], capture_output=True, text=True, check=True,
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    found = json.loads(run.stdout.splitlines()[-1])
    assert {status for status, _ in found.values()} == {"completed"}
    own = evaluate(load_seed("remoe_joint", 16), small(), Budget("steps", 3), 1).val_loss
    assert found["remoe_joint"][1] == pytest.approx(own, rel=1e-4)
