"""Rotary positions: published attention where a program has it, and what they are in any other."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from primitives import Graph, build, parse
from primitives.kernels.positions import rotated, with_sinusoids
from primitives.lowering.dispatch import LoweringOptions
from primitives.lowering.emit import emit
from primitives.lowering.layer import block_function
from primitives.lowering.rewrite import lowered
from primitives.lowering.rotary import ROTATED, is_rotated, rotated_states
from primitives.lowering.stepwise import emit_step
from primitives.programs.seeds import load_seed, seed_names
from tests.primitives.call_sites import random_weights

WIDTH, LENGTH = 32, 9
ROTARY = LoweringOptions(2, LENGTH, rotary=True)


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def graph_of(text: str) -> Graph:
    graph = build(parse(f"dims d0=8 d1=1\nconstants c0=0.0 c1=0.5\nmain(x, y):\n  {text.lstrip()}"))
    assert isinstance(graph, Graph), graph
    return graph


@pytest.mark.parametrize("size", [1, 2, 5, 8])
@pytest.mark.parametrize("start", [0, 7])
def test_pairs_of_features_are_rotated(size: int, start: int) -> None:
    x, half = drawn(2, 3, LENGTH, size), size // 2
    place = start + np.arange(LENGTH)[:, None]
    turns = np.exp(1j * place * 10000.0 ** (-np.arange(half) / max(half, 1)))
    points = (x[..., :half] + 1j * x[..., half : 2 * half]) * turns
    expected = np.concatenate([points.real, points.imag, x[..., 2 * half :]], axis=-1)
    found = rotated(tf.constant(x), tf.constant(start))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_products_depend_on_the_distance_alone() -> None:
    q, k = (tf.constant(drawn(1, LENGTH, 8, seed=seed)) for seed in (1, 2))
    here = ops.matmul(rotated(q), ops.swapaxes(rotated(k), -1, -2))
    far = ops.matmul(rotated(q, 400), ops.swapaxes(rotated(k, 400), -1, -2))
    apart = ops.matmul(rotated(q, 3), ops.swapaxes(rotated(k), -1, -2))
    np.testing.assert_allclose(here, far, atol=1e-10)
    assert np.abs(np.array(here - apart)).max() > 0.1


def test_far_positions_are_told_apart_in_bfloat16() -> None:
    x = tf.ones((1, 2, 4), tf.bfloat16)
    one, next_one = np.array(rotated(x, 4000))[0].astype("float32")
    expected = np.array(rotated(tf.ones((1, 2, 4)), 4000))[0]
    assert np.abs(one - next_one).max() > 0.3
    np.testing.assert_allclose(one, expected[0], atol=0.02)


def test_the_seed_program_has_rotary_attention_as_published() -> None:
    """Against attention written by hand: what is not attention is a program of its own here."""
    graph = graph_of("""
  q = CONV 1X1(x) dim=d0
  k = CONV 1X1(x) dim=d0
  v = CONV 1X1(x) dim=d0
  scores = T-MAT MUL(q, k)
  exp = EXP(scores)
  seen = MASK(exp)
  sum = RED SUM(seen)
  weights = DIVIDE(seen, sum)
  out = MAT MUL(weights, v)
""")
    weights = [0.3 * each for each in random_weights(graph, 8, np.random.default_rng(4))]
    x = drawn(2, LENGTH, 8)
    block = block_function(graph, 8, ROTARY)
    found = block(tf.constant(x), [tf.constant(each) for each in weights])

    def turned(state: np.ndarray) -> np.ndarray:
        turns = np.exp(1j * np.arange(LENGTH)[:, None] * 10000.0 ** (-np.arange(4) / 4))
        points = (state[..., :4] + 1j * state[..., 4:]) * turns
        return np.concatenate([points.real, points.imag], axis=-1)

    named = {spec.name: value for spec, value in zip(emit(graph, 8).weights, weights, strict=True)}
    q, k, v = (x @ named[f"main_{name}_kernel"] for name in "qkv")
    scores = turned(q) @ turned(k).swapaxes(1, 2)
    chances = np.where(np.tri(LENGTH, dtype=bool), np.exp(scores), 0.0)
    expected = chances / chances.sum(-1, keepdims=True) @ v
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("name", seed_names())
def test_attention_stays_one_kernel_of_rotated_queries_and_keys(name: str) -> None:
    graph = build(load_seed(name, WIDTH), bidirectional=True)
    assert isinstance(graph, Graph)
    plain, turned = lowered(graph), lowered(graph, rotary=True)
    assert [node.op for node in plain] == [node.op for node in turned if node.op != ROTATED]
    products = [node for node in turned if node.op in ("T-MAT MUL", "ATTENTION")]
    assert all(turned[child].op == ROTATED for node in products for child in node.inputs[:2])
    assert len(products) == sum(node.op in ("T-MAT MUL", "ATTENTION") for node in plain)
    assert [node.type for node in plain] == [n.type for n in turned if n.op != ROTATED]
    assert all(max(node.inputs, default=-1) < place for place, node in enumerate(turned))


def test_a_state_is_rotated_once_and_never_over_key_positions() -> None:
    graph = graph_of("""
  scores = T-MAT MUL(x, x)
  seen = MASK(scores)
  again = T-MAT MUL(seen, seen)
  shut = MASK(again)
  sums = RED SUM(x)
  third = T-MAT MUL(x, x)
  ones = T-MAT MUL(sums, sums)
  both = ADD(third, ones)
  closed = MASK(both)
  all = ADD(closed, shut)
  out = MAT MUL(all, x)
""")
    nodes = graph.nodes
    assert {nodes[place].op for place in rotated_states(nodes)} == {"INPUT", "RED SUM"}
    products = [node for node in nodes if node.op == "T-MAT MUL"]
    over_keys = [node for node in products if nodes[node.inputs[0]].type.axis == "S"]
    assert over_keys and not any(is_rotated(nodes, node, node.inputs[0]) for node in over_keys)
    whole, step = emit(graph, 8, options=ROTARY), emit_step(graph, 8, rotary=True).body
    for lines in (whole.lines, step.lines):
        assert sum("rotated(" in line for line in lines) == 2, lines


def test_positions_count_where_a_program_multiplies_positions_and_nowhere_else() -> None:
    """A block without products of two sequences is the same function with rotary positions; of any
    other the first output is."""
    graph = build(load_seed("transformer", WIDTH))
    assert isinstance(graph, Graph)
    weights = [tf.constant(w) for w in random_weights(graph, WIDTH, np.random.default_rng(1))]
    x = tf.constant(drawn(2, LENGTH, WIDTH))
    plain, turned = (
        np.array(block_function(graph, WIDTH, options)(x, weights))
        for options in (LoweringOptions(2, LENGTH), ROTARY)
    )
    assert np.abs(plain - turned).max() > 1e-3
    np.testing.assert_allclose(plain[:, 0], turned[:, 0], atol=1e-9)
    convolution = graph_of("c = DCONV 3X1(x)\n  out = CONV 1X1(c) dim=d0\n")
    assert emit(convolution, 8).lines == emit(convolution, 8, options=ROTARY).lines


def test_without_positions_attention_does_not_see_order_and_with_rotary_ones_it_does() -> None:
    """The last output of a permuted prefix: the same set of keys, in another order."""
    graph = build(load_seed("transformer", WIDTH))
    assert isinstance(graph, Graph)
    weights = [tf.constant(w) for w in random_weights(graph, WIDTH, np.random.default_rng(2))]
    x = drawn(1, LENGTH, WIDTH)
    order = [*np.random.default_rng(3).permutation(LENGTH - 1), LENGTH - 1]
    for options, same in ((LoweringOptions(1, LENGTH), True), (ROTARY, False)):
        block = block_function(graph, WIDTH, options)
        one, other = (np.array(block(tf.constant(v), weights))[0, -1] for v in (x, x[:, order]))
        assert np.allclose(one, other, atol=1e-9) == same


def test_names_of_rotated_states_are_their_own() -> None:
    graph = graph_of("""
  x_rotated = CONV 1X1(x) dim=d0
  rotated = CONV 1X1(x) dim=d0
  scores = T-MAT MUL(x, rotated)
  more = T-MAT MUL(x_rotated, rotated)
  both = ADD(scores, more)
  seen = MASK(both)
  out = MAT MUL(seen, x)
""")
    body = emit(graph, 8, options=ROTARY)
    names = [name for statement in body.statements for name in statement.names]
    assert len(set(names)) == len(names) and "rotated" not in names
    assert all(one != other for one, other in pairwise(sorted(names)))


@pytest.mark.parametrize("start", [0, 300])
def test_sinusoids_are_those_of_vaswani(start: int) -> None:
    """Section 3.5, a sine and a cosine of each frequency, so large together as an embedding."""
    x = drawn(2, LENGTH, WIDTH)
    place, i = start + np.arange(LENGTH)[:, None], np.arange(WIDTH // 2)
    angle = place / 10000.0 ** (2 * i / WIDTH)
    waves = np.sqrt(2 / WIDTH) * np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)
    found = np.array(with_sinusoids(tf.constant(x), start))
    np.testing.assert_allclose(found, x + waves, atol=1e-10)
    assert np.square(waves).mean() == pytest.approx(1 / WIDTH)
