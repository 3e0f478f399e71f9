"""What the rows for routing do in training: noise is TF's; balanced choices, losses and new values
of states are what reference_balancing says."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from primitives import Graph, build, parse
from primitives.kernels import balancing
from primitives.kernels.balancing import Run
from primitives.lowering.layer import block_function
from primitives.ops.state import StateType
from primitives.ops.table import PRIMITIVES
from tests.primitives.test_conformance import ONE
from tests.primitives.test_conformance_routing import (
    BATCH,
    BRANCHES,
    CONSTANT,
    EXPERTS,
    INPUTS,
    LENGTH,
    NAMES,
    SCORES,
    SPARSE,
    Case,
    case,
)
from tests.reference import balancing as reference

LOSSES = [name for name in NAMES if name.endswith("_LOSS") or name in ("REINFORCE", "BASELINE")]
IN_HEADS = ((3,), (3,), (3,), (3,), (3,))


@pytest.mark.parametrize(
    ("name", "drawn"),
    [("NOISE", tf.random.stateless_normal), ("UNIFORM", tf.random.stateless_uniform)],
)
def test_noise_is_tfs_in_training(name: str, drawn: Callable[..., tf.Tensor]) -> None:
    made = case(name, (SCORES, ONE), IN_HEADS, 0)
    ours = made.run(Run(training=True, seed=7))
    expected = drawn(ours.shape, seed=[7, 0], dtype=ours.dtype)
    np.testing.assert_array_equal(ours, expected)
    assert np.std(ours) > 0.2


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def tokens_of(x: tf.Tensor) -> list[np.ndarray]:
    """[batch, heads, T, n] -> for each head [N, n]."""
    moved = np.moveaxis(np.array(x), 1, 0)
    return [head.reshape(-1, head.shape[-1]) for head in moved]


def test_balance_is_sinkhorn_over_the_batch_in_training() -> None:
    x = tf.constant(normal(BATCH, 3, LENGTH, EXPERTS))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        ours = balancing.balance(x, Run(training=True))
        rows, columns = tf.zeros_like(x[..., :1]), tf.zeros_like(x[:1, :, :1])
        for _ in range(8):  # in logarithms
            rows = -tf.reduce_logsumexp(x + columns, -1, keepdims=True) - np.log(BATCH * LENGTH)
            columns = -tf.reduce_logsumexp(x + rows, (0, 2), keepdims=True) - np.log(EXPERTS)
        theirs = tf.exp(x + rows + columns)
        mixed = [tf.reduce_sum(each * normal(*x.shape, seed=1)) for each in (ours, theirs)]
    for mine, scores in zip(tokens_of(ours), tokens_of(x), strict=True):
        np.testing.assert_allclose(mine, reference.sinkhorn(scores), rtol=1e-5)
    np.testing.assert_allclose(*(tape.gradient(total, x) for total in mixed), rtol=1e-4, atol=1e-6)


def test_assign_is_an_even_and_nearly_best_assignment_in_training() -> None:
    uneven = 0
    for seed in range(10):
        x = tf.constant(normal(4, 2, LENGTH, EXPERTS, seed=seed))
        with tf.GradientTape() as tape:
            tape.watch(x)
            values, ids = balancing.assign(x, Run(training=True))
        hot = np.eye(EXPERTS)[np.array(ids)[..., 0]]
        np.testing.assert_array_equal(tape.gradient(values, x), hot)
        np.testing.assert_allclose(np.array(values)[..., 0], (hot * np.array(x)).sum(-1))
        for scores, mine in zip(tokens_of(x), tokens_of(hot), strict=True):
            _, most = reference.best_assignment(scores)
            uneven += len(set(mine.sum(0))) > 1
            assert abs(mine.sum(0) - 6).max() <= 1
            assert (mine * scores).sum() >= 0.93 * most
    assert uneven <= 4


def test_states_move_as_the_papers_say() -> None:
    x, state = normal(BATCH, 3, LENGTH, EXPERTS), normal(3, EXPERTS, seed=1)
    run = Run(training=True)
    balancing.balance_bias(tf.constant(x), tf.constant(state), "bias", 2, 0.25, run)
    balancing.threshold(tf.constant(x), tf.constant(state), "level", 0.4, run)
    for head, scores in enumerate(tokens_of(x)):
        ids = np.argsort(-(scores + state[head]), -1)[:, :2]
        loads = np.bincount(ids.ravel(), minlength=EXPERTS)
        expected = reference.loss_free_update(state[head], loads, 0.25)
        np.testing.assert_allclose(run.updates["bias"][head], expected)
        aim = reference.quantile_threshold(scores, 0.4)
        np.testing.assert_allclose(run.updates["level"][head], 0.9 * state[head] + 0.1 * aim)


def heads_mean(function: Callable[..., float], *arrays: np.ndarray) -> float:
    return float(np.mean([function(*head) for head in zip(*map(tokens_of, arrays), strict=True)]))


def logged(name: str, types: tuple[StateType, StateType]) -> tuple[Case, Run, tf.GradientTape]:
    """A loss's op on three heads, in training."""
    made, run = case(name, types, IN_HEADS, 5), Run(training=True)
    if name == "IMPORTANCE_LOSS" or name.endswith("SPARSITY_LOSS"):
        made.values = [tf.nn.relu(value) for value in made.values]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(made.values)
        np.testing.assert_array_equal(made.run(run), made.values[0])
    return made, run, tape


def spread_out(made: Case) -> np.ndarray:
    """Gates over all experts, of a sparse state."""
    return (np.eye(EXPERTS)[np.array(made.ids[0])] * np.array(made.values[0])[..., None]).sum(-2)


def test_losses_are_those_of_the_papers() -> None:
    made, run, _ = logged("SWITCH_LOSS", (SPARSE, SCORES))
    expected = heads_mean(reference.switch_loss, made.values[1], made.ids[0])
    np.testing.assert_allclose(run.losses, [CONSTANT * expected])
    made, run, _ = logged("IMPORTANCE_LOSS", (SCORES, ONE))
    expected = heads_mean(reference.importance_loss, made.values[0])
    np.testing.assert_allclose(run.losses, [CONSTANT * expected])
    made, run, _ = logged("IMPORTANCE_LOSS", (SPARSE, ONE))
    expected = heads_mean(reference.importance_loss, spread_out(made))
    np.testing.assert_allclose(run.losses, [CONSTANT * expected])
    made, run, _ = logged("LOAD_LOSS", (SPARSE, SCORES))
    expected = heads_mean(reference.load_loss, made.values[1])
    np.testing.assert_allclose(run.losses, [CONSTANT * expected])
    for kind in (SCORES, SPARSE):
        made, run, _ = logged("Z_LOSS", (kind, ONE))
        expected = heads_mean(reference.z_loss, made.values[0])
        np.testing.assert_allclose(run.losses, [CONSTANT * expected])


def test_sparsity_loss_steers_its_weight() -> None:
    made, run, _ = logged("SPARSITY_LOSS", (SCORES, ONE))
    strength = CONSTANT * 1.2 ** np.array(made.w)[:, 0]
    parts = [reference.remoe_l1(gates, made.count) for gates in tokens_of(made.values[0])]
    np.testing.assert_allclose(run.losses, [np.mean(strength * parts)])
    active = [np.mean(gates > 0) for gates in tokens_of(made.values[0])]
    steps = np.sign(np.array(active) - made.count / EXPERTS)[:, None]
    np.testing.assert_allclose(run.updates["w"], np.array(made.w) + steps)
    assert set(steps.ravel()) - {0.0}


def test_a_joint_sparsity_loss_says_how_far_its_share_is_off() -> None:
    """Its loss, and what a layer by itself does, are those of SPARSITY_LOSS."""
    made, run, _ = logged("JOINT_SPARSITY_LOSS", (SCORES, ONE))
    _, alone, _ = logged("SPARSITY_LOSS", (SCORES, ONE))
    np.testing.assert_array_equal(run.losses, alone.losses)
    np.testing.assert_array_equal(run.updates["w"], alone.updates["w"])
    active = [np.mean(gates > 0) for gates in tokens_of(made.values[0])]
    np.testing.assert_allclose(run.together["w"][:, 0], np.array(active) - made.count / EXPERTS)


def test_steps_are_counted_in_training() -> None:
    made, run = case("STEPS", (SCORES, ONE), IN_HEADS, 5), Run(training=True)
    np.testing.assert_array_equal(
        made.run(run)[:, :, 0, 0], np.array(made.w)[None, :, 0].repeat(BATCH, 0)
    )
    np.testing.assert_array_equal(run.updates["w"], np.array(made.w) + 1)


def test_baselines_are_left_to_the_trainer() -> None:
    made, run, _ = logged("BASELINE", (SPARSE, ONE))
    ((foreseen, weight),) = run.baselines
    np.testing.assert_allclose(foreseen, np.array(made.values[1]).mean((1, 3)))
    assert weight == CONSTANT and run.losses == run.policies == []


def test_reinforce_leaves_log_probabilities_to_the_trainer() -> None:
    made, run, _ = logged("REINFORCE", (SPARSE, SPARSE))
    expected = CONSTANT * np.array(made.values[1]).sum((1, 3))
    np.testing.assert_allclose(run.policies, [expected])
    assert run.losses == []


def test_losses_have_gradients_where_the_papers_have_them() -> None:
    """Shares of chosen tokens and numbers of active gates are constants; the rest is not."""
    made, run, tape = logged("SWITCH_LOSS", (SPARSE, SCORES))
    shares = np.stack([hot.mean(0) for hot in tokens_of(np.eye(4)[made.ids[0]].mean(-2))])
    expected = CONSTANT * EXPERTS * shares[None, :, None] / (3 * BATCH * LENGTH)
    for value, gradient in zip(made.values, (0 * made.values[0], expected), strict=True):
        mine = tape.gradient(run.losses[0], value, unconnected_gradients="zero")
        np.testing.assert_allclose(mine, np.broadcast_to(gradient, value.shape), atol=1e-12)
    made, run, tape = logged("Z_LOSS", (SCORES, ONE))
    x = made.values[0]
    expected = 2 * tf.reduce_logsumexp(x, -1, keepdims=True) * tf.nn.softmax(x)
    mine = tape.gradient(run.losses[0], x)
    np.testing.assert_allclose(mine, CONSTANT * expected / (3 * BATCH * LENGTH), rtol=1e-9)
    for name, kind in (("IMPORTANCE_LOSS", SPARSE), ("LOAD_LOSS", SCORES)):
        made, run, tape = logged(name, (kind, SCORES))
        at = PRIMITIVES[name].binary
        numeric = [by_differences(name, made, int(at), place) for place in (0, 40)]
        mine = np.ravel(tape.gradient(run.losses[0], made.values[at]))
        np.testing.assert_allclose(mine[[0, 40]], numeric, rtol=1e-5, atol=1e-9)


def by_differences(name: str, made: Case, at: int, place: int) -> float:
    sides = []
    for step in (1e-6, -1e-6):
        changed = np.array(made.values[at])
        changed.ravel()[place] += step
        values = [*made.values]
        values[at] = tf.constant(changed)
        run = Run(training=True)
        Case(name, made.types, made.supports, (), values, made.ids).run(run)
        sides.append(float(run.losses[0]))
    return (sides[0] - sides[1]) / 2e-6


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("branches", BRANCHES)
def test_losses_are_of_scores_in_any_heads(
    name: str, branches: tuple[tuple[int, ...], ...]
) -> None:
    for types in INPUTS.get(name, [(SCORES, ONE)]):
        run = Run(training=True)
        case(name, types, branches, 3).run(run)
        assert all(np.isfinite(loss) and np.ndim(loss) == 0 for loss in run.losses)
        left = [*run.policies, *(foreseen for foreseen, _ in run.baselines)]
        assert [np.shape(each) for each in left] == [(BATCH, LENGTH)] * (not run.losses)


@pytest.mark.parametrize("op", ["NOISE", "UNIFORM"])
def test_two_draws_of_one_input_differ_in_training_alone(op: str) -> None:
    text = f"""
    dims d0=8
    constants c0=0.0

    main(x, y):
      a = {op}(x)
      b = {op}(x)
      out = DIFFERENCE(a, b)
    """
    graph = build(parse(text))
    assert isinstance(graph, Graph)
    block, x = block_function(graph, 8), tf.ones((2, 3, 8))
    seeds = keras.random.SeedGenerator(1)
    assert not np.any(block(x, [], Run()))
    assert np.all(np.array(block(x, [], Run(training=True, seed=seeds))) != 0)
