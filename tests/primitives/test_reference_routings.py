"""The references themselves hold: against exhaustive search, by hand, by what papers promise."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest

from tests.reference import balancing as balancing
from tests.reference import mixtures, retrieval, routings
from tests.reference.mixtures import Array, Weights


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng((seed, *shape)).normal(size=shape)


def experts(n: int = 4, d: int = 6, f: int = 5) -> dict[str, Array]:
    return {"router": normal(d, n), "up": normal(n, d, f), "down": normal(n, f, d)}


def keys(n: int = 5, d: int = 6, dk: int = 3, heads: int = 2) -> Weights:
    tables = {"values": normal(n * n, d), "u": normal(n * n, d), "v": normal(n * n, d, seed=1)}
    sub_keys = {"keys1": normal(heads, dk, n), "keys2": normal(heads, dk, n, seed=1)}
    return {"query": normal(heads, d, 2 * dk), **sub_keys, **tables}


X = normal(2, 7, 6)


@pytest.mark.parametrize("layer", [retrieval.pkm, retrieval.peer])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_product_keys_find_what_exhaustive_search_finds(
    layer: Callable[..., Array], k: int
) -> None:
    w = keys()
    np.testing.assert_allclose(layer(X, w, k), layer(X, w, k, retrieval.exhaustive), atol=1e-12)


def test_choosing_every_expert_is_the_soft_mixture() -> None:
    w = experts()
    soft = routings.soft_mixture(X, w)
    np.testing.assert_allclose(routings.noisy_top_k(X, w, k=4), soft)
    np.testing.assert_allclose(routings.st_moe(X, w, k=4), soft)
    np.testing.assert_allclose(routings.expert_choice(X, w, share=1.0), soft)


def test_zero_noise_is_evaluation_and_gshard_drops_only_second_experts() -> None:
    w = experts() | {"noise": normal(6, 4, seed=1)}
    np.testing.assert_allclose(
        routings.noisy_top_k(X, w, noise=np.zeros((2, 7, 4))), routings.noisy_top_k(X, w)
    )
    np.testing.assert_allclose(routings.gshard(X, w), routings.st_moe(X, w))
    np.testing.assert_allclose(routings.gshard(X, w, np.zeros((2, 7))), routings.st_moe(X, w))
    logits = X @ w["router"]
    first = logits.argmax(-1)
    runner_up, best = np.moveaxis(np.sort(logits, -1)[..., -2:], -1, 0)
    alone = routings.hash_layer(X, w, first) / (1 + np.exp(runner_up - best))[..., None]
    np.testing.assert_allclose(routings.gshard(X, w, np.full((2, 7), np.inf)), alone)


def test_one_expert_makes_every_softmax_routing_dense() -> None:
    w = experts(n=1)
    dense = mixtures.feed_forward(X, w["up"][0], w["down"][0])
    for layer in (routings.switch, routings.prefix_mean, routings.reinforce, routings.soft_mixture):
        np.testing.assert_allclose(layer(X, w), dense)
    grouped = {name: np.stack([value, value]) for name, value in w.items()}
    np.testing.assert_allclose(routings.prototypes(X, grouped), 2 * dense)
    nested = {"up": w["up"][None], "down": w["down"][None], "inner": w["router"][None]}
    np.testing.assert_allclose(routings.tree(X, {"router": w["router"], **nested}), dense)


def test_only_expert_choice_lets_the_future_change_the_past() -> None:
    w = experts() | {"centroids": normal(6, 4, seed=2), "planes": normal(6, 2)}
    changed = X.copy()
    changed[:, 4:] = 9 * normal(2, 3, 6)
    causal = (
        routings.soft_mixture, routings.noisy_top_k, routings.switch, routings.gshard,
        routings.st_moe, routings.base, routings.s_base, routings.lsh, routings.reinforce,
        routings.remoe, routings.prefix_mean,
    )  # fmt: skip
    for layer in causal:
        np.testing.assert_array_equal(layer(X, w)[:, :4], layer(changed, w)[:, :4])
    before, after = (routings.expert_choice(v, w, share=0.3)[:, :4] for v in (X, changed))
    assert np.abs(before - after).max() > 1e-3


def test_thresholds_at_the_quantile_pass_one_token_fewer_than_the_share() -> None:
    scores = normal(30, 4)
    cut = balancing.quantile_threshold(scores, 0.1)
    assert (scores > cut).sum(0).tolist() == [2] * 4
    assert (scores >= cut).sum(0).tolist() == [3] * 4


def test_a_threshold_of_nothing_is_every_expert_and_of_one_is_none() -> None:
    w = experts()
    gates = mixtures.sigmoid(X @ w["router"])
    dense = np.zeros(X.shape)
    for e in range(4):
        dense += gates[..., [e]] * mixtures.feed_forward(X, w["up"][e], w["down"][e])
    np.testing.assert_allclose(routings.threshold(X, w, np.zeros(4)), dense)
    assert not routings.threshold(X, w, np.ones(4)).any()
    depth = {"router": w["router"][:, 0], "up": w["up"][0], "down": w["down"][0]}
    assert not routings.mixture_of_depths_threshold(X, depth, 1.0).any()
    stops = w | {"stop": np.zeros(6)}
    first, second = (mixtures.feed_forward(X, w["up"][e], w["down"][e]) for e in (0, 1))
    np.testing.assert_allclose(routings.cascade(X, stops | {"stop_bias": np.array(-1.0)}), first)
    both = routings.cascade(X, stops | {"stop_bias": np.array(1.0)})
    np.testing.assert_allclose(both, first + second)


def test_deepseek_bias_chooses_and_does_not_weigh() -> None:
    w = experts() | {"shared_up": np.zeros((6, 5)), "shared_down": np.zeros((5, 6))}
    forced = routings.deepseek(X, w, bias=np.array([0.0, 0.0, 9.0, 0.0]), k=1)
    np.testing.assert_allclose(forced, routings.hash_layer(X, w, np.full((2, 7), 2)))
    uniform = routings.deepseek(X, w | {"router": np.zeros((6, 4))}, bias=np.zeros(4), k=4)
    np.testing.assert_allclose(uniform, routings.soft_mixture(X, w | {"router": np.zeros((6, 4))}))


def test_sinkhorn_masses() -> None:
    masses = balancing.sinkhorn(normal(16, 4))
    np.testing.assert_allclose(masses.sum(0), 1 / 4)
    np.testing.assert_allclose(masses.sum(1), 1 / 16, rtol=1e-3)


def test_best_assignment_is_the_best_of_all_balanced_ones() -> None:
    for seed in range(5):
        scores = normal(6, 3, seed=seed)
        ids, total = balancing.best_assignment(scores)
        assert np.bincount(ids, minlength=3).tolist() == [2, 2, 2]
        every = set(permutations((0, 0, 1, 1, 2, 2)))
        assert total == pytest.approx(max(scores[range(6), p].sum() for p in every))


def test_best_assignment_beats_random_balanced_ones() -> None:
    scores, rng = normal(16, 4), np.random.default_rng(0)
    ids, total = balancing.best_assignment(scores)
    assert np.bincount(ids).tolist() == [4] * 4
    others = [rng.permutation(np.repeat(np.arange(4), 4)) for _ in range(500)]
    assert total > max(scores[np.arange(16), other].sum() for other in others)
    with pytest.raises(ValueError, match="16 tokens do not divide evenly among 3 experts"):
        balancing.best_assignment(scores[:, :3])


def test_base_training_is_greedy_except_where_the_assignment_differs() -> None:
    w = experts() | {"centroids": normal(6, 4, seed=2)}
    x = X[:, :6]
    ids, _ = balancing.best_assignment((x @ w["centroids"]).reshape(12, 4))
    same = (ids.reshape(2, 6) == (x @ w["centroids"]).argmax(-1))[..., None]
    assert 0 < same.sum() < 12
    agree = np.isclose(routings.base_training(x, w), routings.base(x, w)).all(-1, keepdims=True)
    np.testing.assert_array_equal(agree, same)


def test_queue_by_hand() -> None:
    """Expert 0 has one place: token 0 takes it as second choice, before token 1's first choice."""
    ids = np.array([[[1, 0], [0, 1], [0, 2]], [[0, 1], [2, 1], [2, 0]]])
    kept = balancing.dispatch_with_capacity(ids, n=3, capacity=1)
    assert kept[0].tolist() == [[True, True], [False, False], [False, True]]
    assert kept[1].tolist() == [[True, True], [True, False], [False, False]]


def test_balanced_routing_costs_what_the_papers_say() -> None:
    uniform = np.full((8, 4), 1 / 4)
    ids = np.stack([np.arange(8) % 4, (np.arange(8) + 1) % 4], -1)
    assert balancing.switch_loss(uniform, ids) == pytest.approx(1)
    assert balancing.switch_loss(np.eye(4)[[0] * 8], np.zeros((8, 1), int)) == pytest.approx(4)
    assert balancing.importance_loss(uniform) == pytest.approx(0)
    assert balancing.importance_loss(np.eye(4)[[0] * 8]) == pytest.approx(3)
    assert balancing.load_loss(np.zeros((8, 4))) == pytest.approx(0)
    assert balancing.z_loss(np.zeros((8, 4))) == pytest.approx(np.log(4) ** 2)
    assert balancing.remoe_l1(np.eye(4)[np.arange(8) % 4], k=1) == pytest.approx(1)


def test_margins_exclude_the_expert_itself() -> None:
    clean = noisy = np.array([[3.0, 1.0, 0.0]])
    sigma = np.array([[1.0, 2.0, 0.5]])
    margins = balancing.shazeer_margins(clean, noisy, sigma, k=1)
    np.testing.assert_allclose(margins, [[2.0, -1.0, -6.0]])
    margins = balancing.shazeer_margins(clean, noisy, sigma, k=2)
    np.testing.assert_allclose(margins, [[3.0, 0.5, -2.0]])


def test_load_is_the_chance_of_being_chosen_again() -> None:
    """Phi(margin) is how often an expert is in the top k when its own noise is drawn anew."""
    clean, noise, sigma = normal(1, 5), normal(1, 5, seed=1), np.exp(normal(1, 5, seed=2))
    noisy = clean + sigma * noise
    margins = balancing.shazeer_margins(clean, noisy, sigma, k=2)
    draws = np.random.default_rng(0).normal(size=4000)
    for e in range(5):
        again = np.repeat(noisy, len(draws), 0)
        again[:, e] = clean[0, e] + sigma[0, e] * draws
        chosen = (np.argsort(-again)[:, :2] == e).any(1).mean()
        below = np.mean(draws < margins[0, e])
        assert chosen == pytest.approx(below, abs=0.05)


def test_usage_and_the_update_that_evens_it_out() -> None:
    even = balancing.usage(np.full(4, 5))
    assert even == {"used": 1.0, "unevenness": pytest.approx(0), "max_violation": 0.0}
    lone = balancing.usage(np.array([8, 0, 0, 0]))
    assert lone == {"used": 0.25, "unevenness": pytest.approx(np.log(4)), "max_violation": 3.0}
    b = balancing.loss_free_update(np.zeros(3), np.array([6, 2, 4]), u=0.1)
    np.testing.assert_allclose(b, [-0.1, 0.1, 0.0])
