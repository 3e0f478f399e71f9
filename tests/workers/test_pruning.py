"""A trained model made smaller: gates, masked model against sliced model, targets, training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from primitives import Graph, build
from primitives.lowering.cost import layers_cost
from primitives.programs.seeds import load_seed
from workers.model.ends import embedding_and_head, head
from workers.model.model import layers_of, logits, through
from workers.model.shape import initial_model, shape_of
from workers.pruning import gates
from workers.pruning.checkpoint import Checkpoint
from workers.pruning.distillation import chosen_layers, layer_loss, prediction_loss
from workers.pruning.failure import PruningError, TooMuch
from workers.pruning.plan import Array, Masks, Plan, plan, smaller, spread
from workers.pruning.pruning import Progress, Settings, prune
from workers.pruning.rounding import _squares, magnitudes, rounded, usages
from workers.pruning.student import Model, gated, scorer
from workers.pruning.target import Target, speedup
from workers.pruning.trainer import Gates, Trainer
from workers.spec.fit import lowering_options
from workers.spec.task import DataSpec, ModelSpec, OptimizerSpec, Task, TrainingSpec

TASK = Task(
    data=DataSpec(max_documents=40),
    model=ModelSpec(d_model=16, layers=3, sequence_length=12),
    optimizer=OptimizerSpec(warmup_steps=5, learning_rate=5e-3),
    training=TrainingSpec(batch_size=4, eval_batches=2),
)
ROWS = 256
Pair = tuple[np.ndarray, np.ndarray]


@cache
def made(name: str) -> tuple[Plan, tuple[Array, ...]]:
    """A seed program's plan, and start values of its model with norms that differ."""
    graph = build(load_seed(name, 16))
    assert isinstance(graph, Graph)
    found = plan(graph, TASK, ROWS)
    shape = shape_of([layer.graph for layer in found.layers], TASK.model, ROWS)
    rng = np.random.default_rng(3)
    values = initial_model(shape, 0)
    return found, tuple(
        v + np.float32(0.1) * rng.standard_normal(v.shape, np.float32) for v in values
    )


def masks_of(found: Plan, seed: int) -> Masks:
    rng = np.random.default_rng(seed)
    kept = found.all_kept()
    for layer, own in zip(found.layers, kept, strict=False):
        for group, mask in zip(layer.groups, own[:-1], strict=False):
            mask[:] = rng.random(group.count) < (0.7 if group.addend else 0.5)
            if group.dim >= 0:
                mask[rng.integers(group.count)] = 1
    kept[1][-1][:] = 0  # the middle layer goes as a whole
    for mask in kept[-1]:
        mask[:] = rng.permutation(np.arange(len(mask)) % 8 < 5)
    return kept


def masked_and_sliced(found: Plan, task: Task, values: tuple[Array, ...], kept: Masks) -> Pair:
    """Logits of the masked model, and of the smaller one."""
    seed, outer = tf.zeros(2, tf.int32), embedding_and_head(task.model)
    tokens = np.random.default_rng(1).integers(0, 256, (2, 12))

    def tensors(values: Sequence[Array]) -> list[tf.Tensor]:
        return [tf.constant(np.asarray(value, np.float32)) for value in values]

    embedding, *positions, scale, shift = tensors(found.masked(values, kept, np))[: found.outer]
    layers = gated(found, task)
    x = outer.embed(tokens, embedding, *positions)
    weights = tensors(found.masked(values, kept, np))
    x, _ = through(layers, weights, x, tokens, False, seed)
    for mask in kept[-1]:
        x = spread(x, tf.constant(mask), ops)
    whole = head(x, embedding, scale, shift)
    shape = smaller(found, kept)
    left = tensors(shape.weights(found, found.scaled(values, kept, np)))
    sliced = logits(layers_of(shape.graphs, task), left, tokens, False, seed, outer)[0]
    return np.asarray(whole), np.asarray(sliced)


@pytest.mark.parametrize("log_alpha", [-3.0, -0.5, 0.0, 1.5])
def test_the_chance_of_a_gate_is_what_draws_say(log_alpha: float) -> None:
    draws = np.random.default_rng(0).random(200_000, np.float32)
    drawn = np.asarray(gates.drawn(ops.full(draws.shape, log_alpha), draws))
    chance = float(gates.chance(ops.convert_to_tensor(log_alpha)))
    assert abs((drawn > 0).mean() - chance) < 4 * (chance * (1 - chance) / len(draws)) ** 0.5
    assert drawn.min() == 0 and drawn.max() == 1
    one = 1 / (1 + np.exp(2 / 3 * np.log(11) - log_alpha))  # where s is past 1.1 of 1.2
    assert abs((drawn == 1).mean() - one) < 4 * (one * (1 - one) / len(draws)) ** 0.5


@pytest.mark.parametrize("name", ["transformer", "primer", "switch", "mixture_of_depths"])
def test_a_masked_model_equals_the_sliced_one(name: str) -> None:
    """Whole layers too; `mixture_of_depths` has other blocks in between. Masks that are neither 0
    nor 1 go into the weights."""
    found, values = made(name)
    kept = masks_of(found, seed=4)
    shape = smaller(found, kept)
    assert 1 not in shape.layers and shape.channels.sum() == 10
    cost = layers_cost(shape.graphs, 10, ROWS, lowering_options(TASK)).parameters
    assert cost - (ROWS + 12 + 2) * 10 == found.cost("parameters", kept, np.sum)
    soft = [[each * np.float32(0.6) for each in own] for own in kept]
    for own in soft[:-1]:
        own[-1] = np.sign(own[-1])  # a smaller model has a layer or has it not
    for masks in (kept, soft):
        whole, sliced = masked_and_sliced(found, TASK, values, masks)
        np.testing.assert_allclose(sliced, whole, rtol=1e-5, atol=1e-5)


def test_flops_are_those_of_the_smaller_model() -> None:
    """Its output projection is smaller, too."""
    found, _ = made("transformer")
    kept = masks_of(found, seed=4)
    cost = layers_cost(smaller(found, kept).graphs, 10, ROWS, lowering_options(TASK))
    assert cost.flops_per_token == pytest.approx(found.cost("flops", kept, np.sum))


@pytest.mark.parametrize("name, word", [("transformer", "sinusoidal"), ("campaign_dense", "heads")])
def test_channels_that_cannot_be_cut_say_why(name: str, word: str) -> None:
    graph = build(load_seed(name, 16))
    assert isinstance(graph, Graph)
    model = TASK.model.model_copy(update={"positions": "sinusoidal"} if "sin" in word else {})
    found = plan(graph, TASK.model_copy(update={"model": model}), ROWS)
    assert not found.channels and found.sizes[-1] == []
    for layer in found.layers:
        assert any(each.kind == "channels" and word in each.reason for each in layer.whole)


def test_rotary_positions_keep_what_they_turn() -> None:
    """Pairs of channels are turned by their place; heads may go all the same."""
    graph = build(load_seed("transformer", 16))
    assert isinstance(graph, Graph)
    model = TASK.model.model_copy(update={"positions": "rotary"})
    task = TASK.model_copy(update={"model": model})
    found = plan(graph, task, ROWS)
    assert found.outer == 3
    kinds = {(group.kind, group.name) for group in found.layers[0].groups}
    assert ("hidden", "self_attention.query") not in kinds and ("heads", "main.heads") in kinds
    shape = shape_of([layer.graph for layer in found.layers], task.model, ROWS)
    values, kept = initial_model(shape, 0), found.all_kept()
    for own in kept[:-1]:
        own[1][1:5] = 0
    kept[-1][0][1:5] = 0
    whole, sliced = masked_and_sliced(found, task, tuple(values), kept)
    np.testing.assert_allclose(sliced, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("target", [Target("parameters", 0.6), speedup(2.0)])
def test_rounding_reaches_the_target_and_takes_no_more_than_it_needs(target: Target) -> None:
    found, values = made("transformer")
    scores = magnitudes(found, values)
    kept = rounded(found, scores, target.measure, target.most(found))
    cost = found.cost(target.measure, kept, np.sum)
    assert cost <= target.most(found)
    gone = [
        (scores[a][b][c], (a, b, c))
        for a, own in enumerate(kept)
        for b, mask in enumerate(own)
        for c in np.flatnonzero(mask == 0)
    ]
    a, b, c = max(gone)[1]
    kept[a][b][c] = 1
    assert found.cost(target.measure, kept, np.sum) > target.most(found)


def test_the_least_used_experts_go_first() -> None:
    """Their use is counted by hand, from the layer's own gates."""
    found, values = made("switch")
    model = Model.of(tuple(layer.graph for layer in found.layers), TASK, values)
    windows = np.random.default_rng(5).integers(0, 256, (2, 4, 13))
    _, loads = scorer(model, TASK)(windows)
    scores = usages(found, values, loads)
    at = [group.kind for group in found.layers[0].groups].index("experts")
    for own, (load, *_) in zip(scores[:-1], loads, strict=True):
        assert load.sum() > 0 and len(set(load.tolist())) > 1
        np.testing.assert_allclose(own[at], load / load.sum(), rtol=1e-6)
    kept = rounded(found, scores, "parameters", Target("parameters", 0.4).most(found))
    for own, layer in zip(kept[:-1], found.layers, strict=True):
        for group, mask in zip(layer.groups, own, strict=False):
            assert group.kind == "experts" or mask.all(), "experts are enough"
    gone = [scores[n][at][~own[at].astype(bool)] for n, own in enumerate(kept[:-1])]
    left = [scores[n][at][own[at].astype(bool)] for n, own in enumerate(kept[:-1])]
    assert max(map(float, np.concatenate(gone))) <= min(
        float(np.sort(each)[0]) for each in left if len(each) > 1
    )


def test_a_target_out_of_reach_is_refused() -> None:
    """The output projection alone is more than that."""
    found, values = made("transformer")
    with pytest.raises(TooMuch, match="have to stay"):
        prune(found.graph, TASK, values, Settings(speedup(500.0), 4, 0))


def test_what_another_version_kept_is_told_in_one_line(tmp_path: Path) -> None:
    """It had other arrays."""
    found, values = made("transformer")
    Checkpoint(tmp_path).keep_now("gates", 1, lambda: [np.zeros(2)])
    settings = Settings(Target("parameters", 0.5), 4, 0, baselines=False)
    with pytest.raises(PruningError, match=r"under-way.npz is damaged \(ValueError.* delete it"):
        prune(found.graph, TASK, values, settings, Checkpoint(tmp_path))


def test_distillation_is_zero_of_the_teacher_itself() -> None:
    rng = np.random.default_rng(0)
    states = [tf.constant(rng.standard_normal((2, 3, 4)), tf.float32) for _ in range(6)]
    identity = tf.eye(4)
    assert float(prediction_loss(states[0], states[0])) == pytest.approx(0, abs=1e-6)
    assert float(prediction_loss(states[0], states[1])) > 0.1
    assert float(layer_loss(states, states, identity)) == 0
    assert float(layer_loss(states[1:2], states[1:2], 2 * identity)) > 0.1
    assert chosen_layers(6) == (0, 2, 3, 5) and chosen_layers(2) == (0, 1)
    # A student's layer may be the nearest of several, in any order.
    chosen = [states[number] for number in chosen_layers(6)]
    assert float(layer_loss(chosen[::-1], states, identity)) == 0
    # Errors are in parts of the teacher's states: nothing is all of them, at any scale.
    nothing = [tf.zeros((2, 3, 4))]
    for scale in (0.01, 100.0):
        grown = [scale * state for state in states]
        assert float(layer_loss(nothing, grown, identity)) == pytest.approx(1)


def test_gates_drive_the_expected_share_to_the_target() -> None:
    found, values = made("transformer")
    student = Model.of(tuple(layer.graph for layer in found.layers), TASK, values)
    windows = np.random.default_rng(2).integers(0, 256, (80, 4, 13))
    pruned = Gates(found, Target("parameters", 0.6), 80)
    trainer = Trainer(student, TASK, 0, student, pruned)
    losses = [trainer.train(windows[at : at + 1], at) for at in range(3)]
    early = trainer.kept()
    trainer.train(windows[3:], 3)
    assert trainer.share_gone == pytest.approx(0.6, abs=0.02)
    assert np.abs(trainer.log_alphas()).max() <= np.float32(gates.BOUND)
    again = Trainer(student, TASK, 0, student, pruned)
    assert [again.train(windows[at : at + 1], at) for at in range(3)] == losses
    later = Trainer(student, TASK, 0, student, pruned)
    later.restore(early)
    later.train(windows[3:], 3)
    for one, other in zip(later.kept(), trainer.kept(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transformer", "switch"])
def test_pruning_ends_in_a_smaller_model_that_has_learned(name: str) -> None:
    found, values = made(name)
    told: list[Progress] = []
    settings = Settings(Target("parameters", 0.5), 60, seed=1, whole_steps=20)
    pruned = prune(found.graph, TASK, values, settings, watch=told.append)
    rows = {row.name: row for row in pruned.rows}
    assert (
        told[-1].done
        == told[-1].total
        == sum(row.steps for row in pruned.rows if row.name != "whole")
    )
    assert [each.done for each in told] == sorted(each.done for each in told)
    assert pruned.share_gone >= 0.5
    whole, small = rows["whole"].cost.parameters, rows["pruned"].cost.parameters
    inside = whole - (ROWS + 12 + 2) * 16
    assert small <= whole - 0.5 * inside
    assert rows["pruned"].test_bpb < rows["whole"].test_bpb - 1, "the whole model is untrained"
    assert rows["from scratch"].test_bpb < rows["whole"].test_bpb - 1
    assert rows["from scratch"].steps == 80
    assert set(rows) >= {"by magnitude", "distilled from scratch"}
    assert ("least used experts" in rows) == (name == "switch")


@pytest.mark.parametrize(
    ("places", "expected", "count"),
    [
        (((4, 0),), [1 + 4 + 9, 16 + 25 + 36], 3),
        (((4, 1),), [1 + 16, 4 + 25, 9 + 36], 2),
        (((4, -1),), [91, 91, 91], 6),  # each unit scales all of it
        (((4, 1), (9, 0)), [17 + 4, 29 + 4, 45 + 4], 3),
        (((7, 1),), [4 * (1 + 9), 4 * (4 + 16), 0], 8),
    ],
)
def test_the_weights_that_a_mask_scales(
    places: tuple[tuple[int, int], ...], expected: list[float], count: int
) -> None:
    """By hand: weights of 2 x 3 and of 3, and one whose first axis is a product of two."""
    layout = SimpleNamespace(
        weights={9: ((1,),), 4: ((0,), (1,)), 7: ((0, 1), (2,))}, sizes=(2, 3, 4)
    )
    product = np.zeros((2, 3, 4))
    product[:, 0], product[:, 1] = [[1], [3]], [[2], [4]]
    weights = [np.array([[1.0, 2, 3], [4, 5, 6]]), product.reshape(6, 4), np.array([2.0, 2, 2])]
    layer: Any = SimpleNamespace(layout=layout)
    group: Any = SimpleNamespace(count=len(expected), places=places)
    total, number = _squares(layer, group, weights)
    np.testing.assert_allclose(total, expected)
    assert number == count
