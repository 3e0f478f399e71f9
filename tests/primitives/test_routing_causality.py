"""Routed calls with a capacity, where a token's place depends on others: on earlier ones of its own
sequence alone. A gradient would not show a leak through selection, so suffixes are replaced."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from primitives import Graph, build, parse
from primitives.kernels import routing
from primitives.kernels.balancing import Run
from primitives.lowering.dispatch import LoweringOptions
from primitives.lowering.layer import lower
from tests.primitives.call_sites import random_weights
from tests.reference.balancing import dispatch_with_capacity
from tests.reference.random_programs import PRODUCT_KEYS, TOP_2, TREE

FACTORS = (0.5, 0.75, 1.0, 1.25)
CUTS = (4, 9, 14)
TRIALS, BATCH, LENGTH, WIDTH = 40, 3, 16, 8
CLOSE = 1e-5

NOISY = parse(
    """
    dims d0=8
    constants c0=0.01
    counts n0=4 n1=2

    main(x, y):
      scores = SCORE(x) count=n0
      noise = NOISE(scores)
      noisy = ADD(scores, noise)
      biased = BALANCE_BIAS(noisy) constant=c0 count=n1
      top = TOP_K(biased) count=n1
      kept = SWITCH_LOSS(top, scores) constant=c0
      fed = expert(x, kept) branch=routed
      out = ADD(x, fed)

    expert(x, y):
      inner = CONV 1X1(x) dim=d0
      out = SQUARE(inner)
    """
)
PROGRAMS = {"top-2": TOP_2, "noisy": NOISY, "tree": TREE, "product keys": PRODUCT_KEYS}

Floats = npt.NDArray[np.float32]
Block = Callable[[Floats, int], Floats]


@cache
def lowered_block(program: str, factor: float | None, training: bool) -> tuple[Graph, Any]:
    graph = build(PROGRAMS[program])
    assert isinstance(graph, Graph)
    options = LoweringOptions(BATCH, LENGTH, capacity_factor=factor, kind="blocks")
    function = lower(graph, WIDTH, options).function

    @tf.function(reduce_retracing=True, autograph=False)
    def run(x: tf.Tensor, weights: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        passed = Run(training=training, seed=5)
        made = function(x, weights, passed)
        return made, *passed.loads[0][:2]

    return graph, run


def block_of(program: str, factor: float | None, training: bool) -> Block:
    """(x, seed of the weights) -> output."""

    def run(x: Floats, seed: int) -> Floats:
        return np.array(run_of(program, factor, training, x, seed)[0])

    return run


def run_of(program: str, factor: float | None, training: bool, x: Floats, seed: int) -> Any:
    graph, function = lowered_block(program, factor, training)
    weights = random_weights(graph, WIDTH, np.random.default_rng(seed))
    return function(tf.constant(x), [tf.constant(w, tf.float32) for w in weights])


def drawn(seed: int, scale: float = 1.0) -> Floats:
    rng = np.random.default_rng((seed, 1))
    return (scale * rng.standard_normal((BATCH, LENGTH, WIDTH))).astype(np.float32)


def changed(x: Floats, seed: int, rows: slice, start: int) -> Floats:
    """These sequences with a suffix of large variance."""
    other = x.copy()
    other[rows, start:] = drawn(seed + 1000, 30.0)[rows, start:]
    return other


def furthest(block: Block, trials: int = TRIALS) -> dict[str, list[float]]:
    """In each trial, how far at most the output moved where it should not have."""
    moved: dict[str, list[float]] = {"suffix": [], "own suffix": [], "other rows": []}
    for seed in range(trials):
        x = drawn(seed)
        before = block(x, seed)
        own, others, every = [], [], []
        for cut in CUTS:
            after = block(changed(x, seed, slice(None), cut), seed)
            every.append(abs(after - before)[:, :cut].max())
            assert abs(after - before)[:, cut:].max() > 1e-3
            after = block(changed(x, seed, slice(0, 1), cut), seed)
            own.append(max(abs(after - before)[0, :cut].max(), abs(after - before)[1:].max()))
        after = block(changed(x, seed, slice(1, None), 0), seed)
        others.append(abs(after - before)[0].max())
        for name, values in zip(moved, (every, own, others), strict=True):
            moved[name].append(float(max(values)))
    return moved


@pytest.mark.parametrize(
    ("program", "factor"),
    [*product(["top-2"], FACTORS), *product(["noisy", "tree", "product keys"], FACTORS[:1])],
)
def test_no_later_token_and_no_other_row_moves_a_place_in_training(
    program: str, factor: float
) -> None:
    for name, distances in furthest(block_of(program, factor, training=True)).items():
        assert max(distances) <= CLOSE, f"{name}: {sum(d > CLOSE for d in distances)} trials leak"


@pytest.mark.parametrize("program", PROGRAMS)
def test_nor_does_any_in_evaluation(program: str) -> None:
    for name, distances in furthest(block_of(program, 0.5, training=False)).items():
        assert max(distances) <= CLOSE, f"{name}: {sum(d > CLOSE for d in distances)} trials leak"


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_prefix_gives_the_prefix_in_evaluation(program: str) -> None:
    """The capacity in training depends on the length; evaluation drops nothing."""
    block = block_of(program, 0.5, training=False)
    for seed, length in product(range(10), (1, 5, 11)):
        x = drawn(seed)
        difference = abs(block(x[:, :length], seed) - block(x, seed)[:, :length])
        assert difference.max() <= CLOSE


def choice_major(ids: tf.Tensor, n: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The queue of GShard and its followers: all first choices before any second one."""
    length, k = ids.shape[-2:]
    expert = tf.cast(tf.reshape(ids, (-1, length, k)), tf.int32)
    hot = tf.reshape(
        tf.one_hot(tf.transpose(expert, [0, 2, 1]), n, dtype=tf.int32), (-1, k * length, n)
    )
    rank = tf.reduce_sum((tf.cumsum(hot, axis=1) - 1) * hot, axis=-1)
    rank = tf.transpose(tf.reshape(rank, (-1, k, length)), [0, 2, 1])
    return tf.reshape(rank, (-1, length * k)), tf.reshape(expert, (-1, length * k))


@pytest.mark.parametrize("factor", (0.75, 1.0, 1.25))
def test_a_queue_by_choices_would_leak(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    lowered_block.cache_clear()
    monkeypatch.setattr(routing, "queue", choice_major)
    moved = furthest(block_of("top-2", factor, training=True))
    lowered_block.cache_clear()
    assert sum(distance > 1e-3 for distance in moved["own suffix"]) >= 1
    assert max(moved["other rows"]) <= CLOSE


def choices(rng: np.random.Generator, n: int, k: int) -> npt.NDArray[np.int64]:
    """[batch, T, k], some experts far more popular than others."""
    liked = rng.standard_normal((BATCH, LENGTH, n)) + 2 * rng.standard_normal(n)
    return np.argsort(-liked, axis=-1)[..., :k]


@pytest.mark.parametrize("factor", FACTORS)
def test_a_token_finds_room_where_the_queue_says(factor: float) -> None:
    rng, dropped = np.random.default_rng(0), 0
    for n, k in ((4, 2), (8, 2), (4, 1), (8, 3)):
        ids = choices(rng, n, k)
        x = rng.standard_normal((BATCH, LENGTH, WIDTH))
        capacity = routing.buffer_capacity(LENGTH, k, n, factor)
        assert capacity == max(1, int(np.ceil(factor * LENGTH * k / n)))
        kept = dispatch_with_capacity(ids, n, capacity)
        slots, route = routing.to_buffers(tf.constant(x), tf.constant(ids), n, (), factor)
        places = np.array(route.places).reshape(kept.shape)
        np.testing.assert_array_equal(places > 0, kept)
        assert len(set(places[kept])) == kept.sum(), "two tokens in one slot"
        rows = np.array(slots).reshape(-1, WIDTH)
        where = np.argwhere(kept)
        np.testing.assert_array_equal(rows[places[kept] - 1], x[where[:, 0], where[:, 1]])
        assert rows.shape[0] == BATCH * n * capacity
        assert not rows[np.setdiff1d(np.arange(len(rows)), places[kept] - 1)].any()
        np.testing.assert_array_equal((places[kept] - 1) // (BATCH * capacity), ids[kept])
        dropped += (~kept).sum()
    assert dropped > 0


@pytest.mark.parametrize("factor", FACTORS)
def test_what_finds_no_room_is_left_out_and_counted(factor: float) -> None:
    """The whole block in training against NumPy with the same weights."""
    shares = []
    for seed in range(5):
        x = drawn(seed)
        graph, _ = lowered_block("top-2", factor, True)
        router, up, down = weights_of(graph, seed)
        scores = x @ router
        ids = np.argsort(-scores, axis=-1)[..., :2]
        top = np.take_along_axis(scores, ids, -1)
        gates = np.exp(top) / np.exp(top).sum(-1, keepdims=True)
        kept = dispatch_with_capacity(ids, 4, int(np.ceil(factor * LENGTH * 2 / 4)))
        expected = x.astype(np.float64)
        for b, t, j in np.argwhere(kept):
            hidden = np.maximum(x[b, t] @ up[ids[b, t, j]], 0)
            expected[b, t] += gates[b, t, j] * (hidden @ down[ids[b, t, j]])
        made, load, share = run_of("top-2", factor, True, x, seed)
        np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(load, np.bincount(ids.ravel(), minlength=4))
        np.testing.assert_allclose(share, np.mean(~kept), atol=1e-6)
        shares.append(float(share))
    assert max(shares) > 0


def weights_of(graph: Graph, seed: int) -> list[npt.NDArray[np.float64]]:
    """Of TOP_2, by shape: router [d, 4], up [4, d, 2], down [4, 2, d]."""
    weights = random_weights(graph, WIDTH, np.random.default_rng(seed))
    return sorted(weights, key=lambda w: (w.ndim, w.shape[-1]))
