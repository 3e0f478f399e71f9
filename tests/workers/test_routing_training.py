"""Routed seed programs in training: noise, losses, updates and balanced choices against their
references, and gradients."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
import pytest
import tensorflow as tf

from primitives import Graph, build, parse, render
from primitives.kernels.balancing import Run, assign, auction, balance
from primitives.lowering.layer import block_function
from primitives.programs.seeds import load_seed
from tests.primitives.seed_parts import (
    BATCH,
    LENGTH,
    TASKS,
    WIDTH,
    Pass,
    X,
    close,
    passed,
    weights_of,
)
from tests.primitives.test_routing_seeds import (
    SEEDS,
    base_given,
    experts,
    prototypes,
    routed,
    temperature,
)
from tests.reference import balancing as balancing
from tests.reference import mixtures, routings
from tests.reference.mixtures import Array, Ids, Weights, each_token, softmax

SEED = 5
EXPERTS = 8
SILENT = (
    "cascade", "demix", "expert_choice", "hash_layer", "lsh", "peer", "product_key_memory",
    "soft_mixture",
)  # fmt: skip
"""Programs that train as they evaluate, with no losses and no states."""


def trained(name: str, sharper: int = 1) -> tuple[Array, Weights, Pass]:
    """X and the weights in double precision, and a training pass with the noise of SEED; scores may
    be so many times sharper."""
    graph = routed(name)
    weights = weights_of(graph)
    weights |= {key: sharper * weights[key] for key in weights if key == "router_scores_score"}
    doubles = {key: value.astype(np.float64) for key, value in weights.items()}
    return X.astype(np.float64), doubles, passed(graph, weights, "blocks", SEED)


def normal(n: int) -> Array:
    return np.asarray(keras.random.normal((BATCH, LENGTH, n), seed=SEED), np.float64)


def uniform(n: int) -> Array:
    return np.asarray(keras.random.uniform((BATCH, LENGTH, n), seed=SEED), np.float64)


def flat(a: Array) -> Array:
    """[batch, T, n] -> [N, n]"""
    return a.reshape(-1, a.shape[-1])


def best(scores: Array, k: int) -> Ids:
    """[N, n] -> [N, k]"""
    return np.array([mixtures.top_k(row, k) for row in scores])


def rows_softmax(scores: Array) -> Array:
    return np.array([softmax(row) for row in scores])


def close_losses(run: Run, *expected: float) -> bool:
    """Whether these are the losses, in any order, to 1e-5 of their size."""
    ours = sorted(float(loss) for loss in run.losses)
    return np.allclose(ours, sorted(expected), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", SILENT)
def test_training_is_evaluation_where_nothing_is_drawn_or_balanced(name: str) -> None:
    graph = routed(name)
    weights = weights_of(graph)
    output, run = passed(graph, weights, seed=SEED)
    assert close(output, passed(graph, weights).output)
    assert not (run.losses or run.updates or run.policies)


def test_noisy_top_k() -> None:
    x, w, (output, run) = trained("noisy_top_k")
    given, noise = experts(w, "router_clean_score") | {"noise": w["router_spread_score"]}, normal(8)
    assert close(output, routings.noisy_top_k(x, given, noise=noise))
    assert not close(output, routings.noisy_top_k(x, given))
    clean, sigma = flat(x @ given["router"]), mixtures.softplus(flat(x @ given["noise"]))
    assert sigma.min() > 0.01
    noisy = clean + flat(noise) * sigma
    gates = np.zeros_like(noisy)
    for row, ids in zip(range(len(noisy)), best(noisy, 2), strict=True):
        gates[row, ids] = softmax(noisy[row, ids])
    margins = balancing.shazeer_margins(clean, noisy, sigma, k=2)
    importance, load = balancing.importance_loss(gates), balancing.load_loss(margins)
    assert close_losses(run, 0.1 * importance, 0.1 * load)


@pytest.mark.parametrize(
    ("name", "threshold"), [("gshard", 0.2), ("gshard_full", 0.5), ("st_moe_full", 0.2)]
)
def test_second_experts_are_dropped_at_random(name: str, threshold: float) -> None:
    x, w, (output, run) = trained(name, sharper=4)
    assert close(output, routings.gshard(x, experts(w), uniform(2)[..., 1], threshold))
    assert not close(output, routings.gshard(x, experts(w)))
    logits = flat(x @ w["router_scores_score"])
    p = rows_softmax(logits)
    z = [0.001 * balancing.z_loss(logits)] * (name == "st_moe_full")
    assert close_losses(run, 0.01 * balancing.switch_loss(p, best(p, 2)), *z)


@pytest.mark.parametrize("name", ["switch", "tree", "prefix_mean", "sentence_level"])
def test_switch_losses(name: str) -> None:
    x, w, (_, run) = trained(name)
    if name == "prefix_mean":
        x = np.cumsum(x, axis=1) / np.arange(1, LENGTH + 1)[:, None]
    if name == "sentence_level":
        w["router_scores_score"] = w["router_own_score"]
        x = np.repeat(x.mean(1, keepdims=True), LENGTH, axis=1)
    p = rows_softmax(flat(x @ w["router_scores_score"]))
    assert close_losses(run, 0.01 * balancing.switch_loss(p, best(p, 1)))


def test_task_level_routing_has_the_loss_of_what_its_tasks_chose() -> None:
    x, w, (output, run) = trained("task_level")
    table = w["task_scores_out_score"][:, 0]
    assert close(output, routings.task_level(x, experts(w) | {"tasks": table}, TASKS))
    p = rows_softmax(table[TASKS.reshape(-1) % len(table)])
    assert close_losses(run, 0.01 * balancing.switch_loss(p, best(p, 2)))


def test_prototypes_have_a_loss_each() -> None:
    x, w, (_, run) = trained("prototypes")
    routers = [rows_softmax(flat(x @ router)) for router in prototypes(w)["router"]]
    assert close_losses(run, *(0.01 * balancing.switch_loss(p, best(p, 1)) for p in routers))


def test_st_moe_has_a_z_loss() -> None:
    x, w, (_, run) = trained("st_moe")
    logits = flat(x @ w["router_scores_score"])
    p = rows_softmax(logits)
    switch = 0.01 * balancing.switch_loss(p, best(p, 2))
    assert close_losses(run, switch, 0.001 * balancing.z_loss(logits))


@pytest.mark.parametrize("name", ["glam", "v_moe"])
def test_both_choices_count_in_the_loss(name: str) -> None:
    x, w, (_, run) = trained(name)
    p = rows_softmax(flat(x @ w["router_scores_score"]))
    assert close_losses(run, 0.01 * balancing.switch_loss(p, best(p, 2)))


def gumbel(n: int) -> Array:
    return -np.log(-np.log(np.maximum(uniform(n), 1e-6)))


def test_dense_to_sparse_gates_are_noisy_and_count_their_steps() -> None:
    x, w, (output, run) = trained("dense_to_sparse")
    assert close(output, routings.dense_to_sparse(x, experts(w), temperature(w), gumbel(EXPERTS)))
    ((name, steps),) = w_states(w).items()
    assert list(run.updates) == [name] and not run.losses
    np.testing.assert_allclose(run.updates[name], steps + 1)


@pytest.mark.parametrize(("steps", "fewest", "most"), [(0, 7, 8), (10_000, 1, 3)])
def test_a_token_begins_with_many_experts_and_ends_with_few(
    steps: int, fewest: float, most: float
) -> None:
    """In evaluation, on average; the temperature is 2, and then 0.3."""
    graph = routed("dense_to_sparse")
    weights = weights_of(graph) | {"temperature_steps_steps": np.full(1, steps, np.float32)}
    output, run = passed(graph, weights)
    t = 0.3 if steps else 2.0
    assert close(output, routings.dense_to_sparse(X.astype(np.float64), experts(weights), t))
    assert fewest <= np.sum(run.loads[0][0]) / (BATCH * LENGTH) <= most


@pytest.mark.parametrize("share", [0.1, 0.25, 0.6])
def test_rooms_are_for_first_choices_and_sure_tokens(share: float) -> None:
    """V-MoE's order, as the program's constant has it."""
    text = render(load_seed("v_moe", WIDTH)).replace("c4=0.2625", f"c4={share}")
    main = text.partition("main(x, y):\n")
    rest = main[2].partition("\n\n")[2]
    graph = build(parse(f"{main[0]}main(x, y):\n  out = feed_forward(x)\n\n{rest}"), True)
    assert isinstance(graph, Graph)
    weights = weights_of(graph)
    expected = routings.v_moe(X.astype(np.float64), experts(weights), share)
    assert close(passed(graph, weights).output, expected)
    roomy = routings.v_moe(X.astype(np.float64), experts(weights), 1.0)
    assert close(expected, roomy) == (share == 0.6)


@pytest.mark.parametrize("name", ["remoe", "remoe_joint"])
def test_remoe_steers_its_sparsity(name: str) -> None:
    x, w, (output, run) = trained(name)
    assert close(output, routings.remoe(x, experts(w)))
    gates = np.maximum(flat(x @ w["router_scores_score"]), 0)
    (name, power), (steered,) = next(iter(w_states(w).items())), run.updates.values()
    assert close_losses(run, 1e-8 * 1.2 ** power.item() * balancing.remoe_l1(gates, k=2))
    more = np.sign(np.mean(gates > 0) - 2 / EXPERTS)
    assert list(run.updates) == [name] and more == 1
    np.testing.assert_allclose(steered, power + more, rtol=1e-6)


def w_states(w: Mapping[str, Array]) -> dict[str, Array]:
    endings = ("threshold", "bias", "sparsity_loss", "steps")
    return {name: value for name, value in w.items() if name.endswith(endings)}


def test_deepseek_moves_its_bias_towards_equal_loads() -> None:
    x, w, (_, run) = trained("deepseek")
    ((name, bias),) = w_states(w).items()
    scores = mixtures.sigmoid(flat(x @ w["router_scores_score"]))
    loads = np.bincount(best(scores + bias, 4).ravel(), minlength=32).astype(float)
    assert {-1, 1} <= {*np.sign(loads - loads.mean())}
    moved = balancing.loss_free_update(bias, loads, 0.001)
    np.testing.assert_allclose(run.updates[name], moved, rtol=0, atol=1e-7)
    assert not run.losses
    np.testing.assert_array_equal(run.loads[0][0], loads)


@pytest.mark.parametrize("name", ["expert_threshold", "mixture_of_depths"])
def test_thresholds_follow_quantiles(name: str) -> None:
    x, w, (_, run) = trained(name)
    router = "router_scores" if name == "expert_threshold" else "depth_gate_score"
    scores = mixtures.sigmoid(flat(x @ w[f"{router}_score"]))
    ((state, level),) = w_states(w).items()
    moved = level + 0.1 * (balancing.quantile_threshold(scores, 1 / 8) - level)
    np.testing.assert_allclose(run.updates[state], moved, rtol=1e-5)
    assert np.count_nonzero(scores > balancing.quantile_threshold(scores, 1 / 8)[0]) > 0


def test_sinkhorn_balances_and_its_choice_has_no_gradient() -> None:
    x, w, (output, _) = trained("sinkhorn")
    logits = x @ w["router_scores_score"]
    masses = balancing.sinkhorn(flat(logits))
    np.testing.assert_allclose(masses.sum(0), 1 / EXPERTS)
    ours = balance(tf.constant(logits, tf.float32), Run(training=True))
    assert close(flat(np.asarray(ours)), masses)
    ids = masses.argmax(-1).reshape(BATCH, LENGTH)
    assert (ids != logits.argmax(-1)).any()
    gates = mixtures.sigmoid(np.take_along_axis(logits, ids[..., None], -1))
    assert close(output, gates * routings.hash_layer(x, experts(w), ids))


def test_base_trains_on_its_auction() -> None:
    x, w, (output, run) = trained("base")
    scores = x @ w["feed_forward_scores_score"]
    ids = np.asarray(assign(tf.constant(scores, tf.float32), Run(training=True))[1])[..., 0]
    assert (ids != scores.argmax(-1)).any()
    assert close(output, base_given(x, w, ids))
    np.testing.assert_array_equal(run.loads[0][0], np.full(EXPERTS, BATCH * LENGTH / EXPERTS))


@pytest.mark.parametrize(("tokens", "n"), [(24, 8), (64, 8), (64, 4), (96, 16)])
def test_auctions_come_close_to_the_best_assignment(tokens: int, n: int) -> None:
    for seed in range(4):
        scores = np.random.default_rng((seed, tokens, n)).standard_normal((tokens, n))
        ids = np.asarray(auction(tf.constant(scores, tf.float32)))
        np.testing.assert_array_equal(np.bincount(ids, minlength=n), tokens // n)
        most, least = balancing.best_assignment(scores)[1], -balancing.best_assignment(-scores)[1]
        total = scores[np.arange(tokens), ids].sum()
        assert total >= least + 0.95 * (most - least)


@pytest.mark.parametrize("name", ["random_expert", "thor"])
def test_random_experts_are_drawn(name: str) -> None:
    x, w, (output, _) = trained(name)
    ids = normal(EXPERTS).argmax(-1)
    assert len({*ids.ravel()}) == EXPERTS
    assert close(output, routings.random_expert(x, experts(w), ids))


@pytest.mark.parametrize("name", ["reinforce", "reinforce_baseline"])
def test_reinforce_draws_by_probability_and_leaves_its_logarithm(name: str) -> None:
    x, w, (output, run) = trained(name)
    logits = x @ w["router_scores_score"]
    ids = (logits - np.log(-np.log(np.maximum(uniform(EXPERTS), 1e-6)))).argmax(-1)
    assert (ids != logits.argmax(-1)).any()
    assert close(output, routings.hash_layer(x, experts(w), ids))
    logs = each_token(lambda row: np.log(softmax(row)), logits)
    (policy,) = run.policies
    assert close(np.asarray(policy), 0.01 * np.take_along_axis(logs, ids[..., None], -1)[..., 0])
    assert not run.losses
    if name == "reinforce_baseline":
        ((foreseen, weight),) = run.baselines
        assert weight == 0.1
        assert close(np.asarray(foreseen), (x @ w["router_foreseen_score"])[..., 0])


def gradients(graph: Graph, policy: bool) -> dict[str, Array]:
    """Of a training pass' output, losses and, if asked for, policies."""
    weights = {name: tf.constant(value) for name, value in weights_of(graph).items()}
    run = Run(training=True, tokens=tf.zeros((BATCH, LENGTH), tf.int32), seed=SEED)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        output = block_function(graph, WIDTH)(tf.constant(X), list(weights.values()), run)
        mix = np.random.default_rng(2).standard_normal(output.shape).astype("float32")
        total = tf.reduce_sum(output * mix)
        total += sum(tf.reduce_sum(each) for each in run.policies) if policy else 0
    found = tape.gradient(total, weights, unconnected_gradients="zero")
    return {name: np.asarray(tf.convert_to_tensor(each)) for name, each in found.items()}


@pytest.mark.parametrize("name", SEEDS)
def test_the_main_loss_trains_experts_and_their_router(name: str) -> None:
    found = gradients(routed(name), policy=False)
    assert all(np.isfinite(gradient).all() for gradient in found.values())
    still = {key for key, gradient in found.items() if not gradient.any()}
    fixed = {key for key in found if key.endswith("_frozen") or "_frozen_" in key}
    policy = {"router_scores_score"} if name.startswith("reinforce") else set()
    policy |= {key for key in found if key.endswith("foreseen_score")}
    assert still == fixed | policy | set(w_states(found))
    if policy:
        assert gradients(routed(name), policy=True)["router_scores_score"].any()
