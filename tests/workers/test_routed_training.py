"""Routed programs in training: states, noise, tables, alternating blocks, how experts are used."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from primitives import DNA, build, parse, render
from primitives.language.dna import EVERY, MIDDLE
from primitives.programs.seeds import load_seed
from tests.reference.balancing import usage as reference_usage
from tests.reference.random_programs import PRODUCT_KEYS, TOP_2
from workers.model.shape import layer_graphs
from workers.spec.fit import refused
from workers.spec.objectives import NEXT_TOKEN
from workers.spec.outcome import Budget, Outcome
from workers.spec.task import OptimizerSpec, Task
from workers.training.evaluate import evaluate
from workers.training.oracle import oracle_task

STEPS = Budget("steps", 4)

STATES = """\
dims d0=8 d1=4
constants c0=0.0 c1=0.1 c2=0.25
counts n0=4 n1=2
main(x, y):
  scores = SCORE(x) count=n0
  noise = NOISE(scores)
  noisy = ADD(scores, noise)
  open = THRESHOLD(noisy) constant=c2
  biased = BALANCE_BIAS(noisy) constant=c1 count=n1
  chosen = TOP_K(biased) count=n1
  gates = TAKE(scores, chosen)
  sparse = SPARSITY_LOSS(open) constant=c1 count=n1
  fed = expert(x, gates) branch=routed
  also = expert(x, sparse) branch=routed
  both = ADD(fed, also)
  out = ADD(x, both)
expert(x, y):
  wide = CONV 1X1(x) dim=d1
  rectified = MAX(wide) constant=c0
  out = CONV 1X1(rectified) dim=d0
"""


def trained(task: Task, **changes: object) -> Task:
    return task.model_copy(update={"training": task.training.model_copy(update=changes)})


def deeper(task: Task, layers: int, **changes: object) -> Task:
    model = task.model.model_copy(update={"layers": layers, **changes})
    return task.model_copy(update={"model": model})


def kept(dna: DNA, task: Task, tmp_path: Path, steps: int) -> dict[str, np.ndarray]:
    path = tmp_path / f"{steps}.npz"
    made = evaluate(dna, task, Budget("steps", steps), seed=1, weights=str(path))
    assert made.status == "completed", made
    with np.load(path) as arrays:
        return {name: array for name, array in arrays.items() if name != "precision"}


def test_a_dense_program_has_no_usage_and_a_routed_one_has(tiny_task):
    dense = evaluate(load_seed("transformer"), tiny_task, STEPS, seed=1)
    routed = evaluate(TOP_2, tiny_task, STEPS, seed=1)
    assert (
        set(dense.metrics) == {"activation_bytes", "bytes_per_token"}
        and dense.active_params == dense.params
    )
    assert routed.metrics["experts_dropped"] == 0
    assert 0 < routed.metrics["experts_used"] <= 1
    assert routed.metrics["activation_bytes"] > 0 < dense.metrics["activation_bytes"]
    assert routed.active_params < routed.params


def experts(outcome: Outcome) -> dict[str, float]:
    """How the experts were used, in the metrics of a run."""
    return {name: value for name, value in outcome.metrics.items() if "experts" in name}


@pytest.mark.parametrize("kind", ["every", "blocks", "entries"])
def test_ways_of_running_train_alike(tiny_task, kind):
    chosen = evaluate(TOP_2, tiny_task, STEPS, seed=1)
    forced = evaluate(TOP_2, trained(tiny_task, routing=kind), STEPS, seed=1)
    assert forced.val_loss == pytest.approx(chosen.val_loss, abs=1e-4)
    assert experts(forced) == pytest.approx(experts(chosen), abs=1e-3) and len(experts(chosen)) == 5


def test_a_tight_capacity_drops_in_training_only(tiny_task):
    tight = trained(tiny_task, capacity_factor=0.5, routing="blocks")
    outcome = evaluate(TOP_2, tight, STEPS, seed=1)
    assert 0.2 < outcome.metrics["experts_dropped"] <= 0.75
    untrained = [
        evaluate(TOP_2, t, Budget("steps", 0), seed=1).val_loss for t in (tight, tiny_task)
    ]
    assert untrained[0] == pytest.approx(untrained[1], abs=1e-5)


def test_usage_is_what_the_definitions_say():
    from workers.training.usage import usage

    loads = [np.array([4.0, 0, 12, 0]), np.array([1.0, 1, 1, 1])]
    expected = [reference_usage(load) for load in loads]
    gates = [np.array([0.5, 0, 1.5, 0]), np.array([1.0, 2, 3, 4])]
    made = usage(list(zip(loads, (0.0, 0.25), gates, strict=True)))
    expected_gates = [reference_usage(gate)["unevenness"] for gate in gates]
    assert made["gate_unevenness"] == pytest.approx(sum(expected_gates) / 2)
    for name in ("used", "unevenness", "max_violation"):
        mean = sum(each[name] for each in expected) / 2
        assert made[name] == pytest.approx(mean)
    assert made["dropped"] == 0.125
    assert usage([]) == usage([(np.zeros(3), 0.0, np.zeros(3))]) == {}


def test_gates_that_sum_to_infinity_leave_usage_without_an_error():
    from workers.training.usage import usage

    made = usage([(np.array([2.0, 2]), 0.0, np.array([np.inf, 1]))])
    assert made["used"] == 1
    assert made["gate_unevenness"] == pytest.approx(np.log(2))


def test_noise_follows_from_the_seed(tiny_task):
    dna = parse(STATES)
    one, again, other = (evaluate(dna, tiny_task, STEPS, seed=s).val_loss for s in (1, 1, 2))
    assert one == again != other


def test_states_move_in_training_and_keep_still_in_scoring(tiny_task, tmp_path):
    dna = parse(STATES)
    start, later = (kept(dna, tiny_task, tmp_path, steps) for steps in (0, 3))
    states = [name for name in start if name.split("_")[-1] in ("threshold", "bias", "loss")]
    assert len(states) == 3
    for name in states:
        assert not start[name].any() and later[name].any(), name
    bias = later[next(name for name in states if name.endswith("bias"))]
    np.testing.assert_allclose(bias, np.round(bias, 1), atol=1e-6)
    assert 0.05 < abs(bias).max() < 0.35


def test_a_decoder_may_not_see_the_future_and_a_masked_task_may(tiny_task):
    dna = load_seed("expert_choice")
    refused = evaluate(dna, tiny_task, STEPS, seed=1)
    assert refused == Outcome("invalid", refused.reason) and "reads the future" in refused.reason
    masked = trained(tiny_task, objective="masked")
    short, long = (evaluate(dna, masked, Budget("steps", n), seed=1) for n in (2, 60))
    assert long.status == "completed" and long.val_loss < short.val_loss - 0.5


@pytest.mark.parametrize(("every", "own"), [(1, (0, 1, 2)), (2, (1,)), (MIDDLE, (1,))])
def test_blocks_alternate_two_programs(tiny_task, tmp_path, every, own):
    task = deeper(tiny_task, 3, other="primer_ez")
    weights = kept(replace(TOP_2, every=every), task, tmp_path, 1)
    routed = {int(name.split("/")[1]) for name in weights if "expert" in name}
    primer = {int(name.split("/")[1]) for name in weights if "multi_head_projection" in name}
    assert routed == set(own) and primer == set(range(3)) - routed


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("layers", [1, 2, 3, 4, 8])
def test_a_task_refuses_a_program_that_no_layer_would_run(tiny_task, every, layers):
    graph, task = build(replace(TOP_2, every=every)), deeper(tiny_task, layers)
    reason = refused(graph, task)
    assert bool(reason) == (graph not in layer_graphs(graph, task.model))
    if reason:
        assert f"every: {every}" in reason and f"model.layers is {layers}" in reason
        assert f"set model.layers to at least {every}" in reason
        outcome = evaluate(replace(TOP_2, every=every), task, STEPS, seed=1)
        assert outcome == Outcome("invalid", reason)


@pytest.mark.parametrize("every", EVERY)
def test_the_oracle_tests_the_program_that_it_names(every):
    graph = build(replace(TOP_2, every=every))
    assert graph in layer_graphs(graph, oracle_task(graph).model)


@pytest.mark.parametrize("dna", [TOP_2, replace(TOP_2, every=2), parse(STATES), PRODUCT_KEYS])
def test_parameters_are_those_that_are_trained(tiny_task, dna):
    from workers.model.shape import model_shape
    from workers.spec.fit import task_cost

    task = deeper(tiny_task, 3)
    shape = model_shape(build(dna), task.model, 256)
    sizes = zip(shape.shapes, shape.trainable, strict=True)
    counted = sum(math.prod(size) for size, trainable in sizes if trainable)
    assert task_cost(build(dna), task, 256).parameters == counted


def test_the_other_program_must_be_one():
    from workers.spec.task import ModelSpec

    with pytest.raises(ValueError, match="unknown seed program 'tranformer'; did you mean"):
        ModelSpec(other="tranformer")
    with pytest.raises(ValueError, match="has no type"):
        ModelSpec(other="dims d0=1\nconstants c0=0.0\nmain(x, y):\n  out = CONV 1X1(x) dim=d0\n")


def many_experts() -> DNA:
    """1,024 of which a step of 64 tokens touches a part: their weights are tables."""
    return replace(PRODUCT_KEYS, counts=(32, *PRODUCT_KEYS.counts[1:]))


def test_the_first_lazy_step_is_the_dense_one(tiny_task, tmp_path, monkeypatch):
    """From zero moments an untouched row does not move in either; clipping sees the same norm."""
    import workers.engines.tensorflow_engine as engine

    spec = OptimizerSpec(learning_rate=0.1, warmup_steps=1, clip_norm=0.05)
    task = trained(tiny_task.model_copy(update={"optimizer": spec}), routing="entries")
    lazy = kept(many_experts(), task, tmp_path, 1)
    packing_of, kinds = engine.packing_of, []

    def dense(*arguments: object, **options: object) -> object:
        made = packing_of(*arguments, **options)
        kinds.extend(made.kinds)
        return replace(made, kinds=tuple(k if k == "state" else "weight" for k in made.kinds))

    monkeypatch.setattr(engine, "packing_of", dense)
    expected = kept(many_experts(), task, tmp_path, 1)
    assert kinds.count("table") >= 2
    start = kept(many_experts(), task, tmp_path, 0)
    moved = [name for name in start if np.abs(start[name] - lazy[name]).max() > 1e-3]
    assert any("expert" in name for name in moved)
    for name, array in expected.items():
        np.testing.assert_allclose(lazy[name], array, atol=2e-5, err_msg=name)


def test_a_frozen_weight_of_an_expert_stays_as_it_started(tiny_task, tmp_path):
    """Of 4,096 neurons a step reads a part; what they read with is not trained, what they write
    with is."""
    text = render(load_seed("peer")).replace("hidden = SCORE(x)", "hidden = FROZEN(x)")
    task = trained(tiny_task, routing="entries")
    start, later = (kept(parse(text), task, tmp_path, steps) for steps in (0, 3))
    frozen = [name for name in start if name.endswith("hidden_frozen")]
    assert frozen and all(len(start[name]) == 4096 for name in frozen)
    for name in start:
        assert (start[name] == later[name]).all() == (name in frozen), name


def test_lazy_moments_step_touched_rows_alone():
    """Against the same written out row by row."""
    import tensorflow as tf

    from workers.engines.tensorflow_tables import LazyAdamW, Rows, touched

    spec = OptimizerSpec(learning_rate=0.1, warmup_steps=2, weight_decay=0.1)
    rng = np.random.default_rng(0)
    table = rng.standard_normal((7, 3)).astype("float32")
    lazy = LazyAdamW([table], spec)
    w, m, v = table.astype("float64"), np.zeros((7, 3)), np.zeros((7, 3))
    for step, ids in enumerate([[0, 2, 2], [2, 5, 0], [2, 2, 2]]):
        pulls = rng.standard_normal((3, 3)).astype("float32")
        with tf.GradientTape() as tape:
            rows = Rows(lazy.tables[0], tape)
            loss = tf.reduce_sum(rows.rows(tf.constant(ids)) * pulls)
        gradients = tape.gradient(loss, [row for _, row in rows.taken])
        lazy.apply(touched([rows], gradients), tf.constant(step))
        rate = 0.1 * min((step + 1) / 2, (2 / (step + 1)) ** 0.5)
        for row in set(ids):
            g = pulls[[i for i, each in enumerate(ids) if each == row]].sum(0)
            m[row] = spec.beta_1 * m[row] + (1 - spec.beta_1) * g
            v[row] = spec.beta_2 * v[row] + (1 - spec.beta_2) * g * g
            unbiased = m[row] / (1 - spec.beta_1 ** (step + 1))
            spread = (v[row] / (1 - spec.beta_2 ** (step + 1))) ** 0.5
            w[row] -= rate * (0.1 * w[row] + unbiased / spread)
    np.testing.assert_allclose(lazy.tables[0].numpy(), w, atol=1e-5)


def test_reinforce_rewards_what_did_better_than_the_mean(tiny_task):
    """The router's gradient is that of -log p times the reward, which is all that reaches it."""
    import tensorflow as tf

    from workers.model.learning import training_loss
    from workers.model.model import model_layers, token_losses
    from workers.model.shape import initial_model, model_shape

    graph = build(load_seed("reinforce"))
    layers, shape = model_layers(graph, tiny_task), model_shape(graph, tiny_task.model, 256)
    weights = [tf.constant(value) for value in initial_model(shape, 0)]
    windows = tf.constant(np.random.default_rng(0).integers(0, 256, (4, 17)), tf.int32)
    seed = tf.constant([3, 1], tf.int32)
    (router,) = (i for i, name in enumerate(shape.names) if name.endswith("_score"))
    with tf.GradientTape() as tape:
        tape.watch(weights)
        total, _, _ = training_loss(layers, weights, windows, seed, NEXT_TOKEN)
    made = tape.gradient(total, weights[router])
    with tf.GradientTape() as tape:
        tape.watch(weights)
        losses, _, auxiliary = token_losses(layers, weights, windows, True, seed, NEXT_TOKEN)
        reward = tf.stop_gradient(-losses)
        better = reward - tf.reduce_mean(reward)
        expected = -tf.reduce_mean(auxiliary.policies[0] * better)
    expected = tape.gradient(expected, weights[router])
    assert np.abs(made).max() > 0
    np.testing.assert_allclose(made, expected, atol=1e-6)


@pytest.mark.slow
def test_the_oracle_tells_a_leak_from_none():
    from workers.training.oracle import oracle

    leaking, causal = oracle(load_seed("expert_choice"), 300), oracle(load_seed("switch"), 100)
    assert leaking.leaks and leaking.loss < leaking.bound - 0.005
    assert not causal.leaks and causal.loss > causal.bound - 0.001
