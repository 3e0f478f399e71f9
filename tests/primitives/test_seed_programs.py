"""Each dense seed program against the same architecture written independently in Keras, and its
counts against those made by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from primitives import Graph, build, parse, render
from primitives.lowering.cost import static_cost
from primitives.lowering.layer import Array, block_function
from primitives.lowering.weights import weight_specs
from primitives.programs.seeds import load_seed, seed_names, seed_text
from tests.primitives.call_sites import by_site, random_weights
from tests.primitives.seed_parts import close
from tests.reference.blocks import BLOCKS, HEADS
from tests.reference.interpreter import interpret

SEEDS = list(BLOCKS)
WIDTHS = (32, 64, 256)
LENGTH = 12


def graph_of(name: str, width: int = 64) -> Graph:
    graph = build(load_seed(name, width))
    assert isinstance(graph, Graph)
    return graph


def named_weights(
    name: str, graph: Graph, width: int
) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
    """Random weights in canonical order, and by the names that the reference gives them. The two
    factors of SwiGLU commute, so their order is told from the program's own names."""
    arrays = random_weights(graph, width, np.random.default_rng(0))
    weights = [tf.constant(array, tf.float32) for array in arrays]
    labels = list(BLOCKS[name][1])
    for place, spec in enumerate(weight_specs(graph, width)):
        for label in ("gate", "wide"):
            if spec.name == f"feed_forward_{label}_kernel":
                labels[place] = label
    return weights, dict(zip(labels, weights, strict=True))


def random_input(width: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(1).standard_normal((2, LENGTH, width)), tf.float32)


def value_and_gradients(
    function: Callable[[], tf.Tensor], watched: list[tf.Tensor]
) -> tuple[Array, list[Array]]:
    with tf.GradientTape() as tape:
        tape.watch(watched)
        output = function()
        mix = np.random.default_rng(2).standard_normal(output.shape).astype("float32")
        total = tf.reduce_sum(output * mix)
    return output.numpy(), [gradient.numpy() for gradient in tape.gradient(total, watched)]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", SEEDS)
def test_blocks_are_those_of_the_papers(name: str, width: int) -> None:
    graph, reference, x = graph_of(name, width), BLOCKS[name][0], random_input(width)
    block, (weights, by_name) = block_function(graph, width), named_weights(name, graph, width)
    watched = [x, *weights]
    ours, our_gradients = value_and_gradients(lambda: block(x, weights), watched)
    theirs, their_gradients = value_and_gradients(lambda: reference(x, by_name), watched)
    assert close(ours, theirs)
    assert np.abs(ours - x).max() > 0.1
    for label, mine, expected in zip(("x", *by_name), our_gradients, their_gradients, strict=True):
        same = np.abs(mine - expected).max() <= 1e-4 * np.abs(expected).max()
        assert same, f"gradient of {label}"


@pytest.mark.parametrize("width", WIDTHS)
def test_the_transformer_is_what_keras_layers_make(width: int) -> None:
    """Scores are scaled as keras.layers.MultiHeadAttention scales them."""
    graph, head = graph_of("transformer", width), width // HEADS
    (weights, w), x = named_weights("transformer", graph, width), random_input(width)
    outputs = block_function(graph, width)(x, weights)
    attention = keras.layers.MultiHeadAttention(HEADS, head, use_bias=False)
    norms = [keras.layers.LayerNormalization(epsilon=1e-9) for _ in range(2)]
    wide = keras.layers.Dense(4 * width, activation="relu", use_bias=False)
    narrow = keras.layers.Dense(width, use_bias=False)

    def block(x: tf.Tensor) -> tf.Tensor:
        normed = norms[0](x)
        x = x + attention(normed, normed, use_causal_mask=True)
        return x + narrow(wide(norms[1](x)))

    block(x)
    heads = [np.moveaxis(w[name].numpy(), 0, 1) for name in ("query", "key", "value")]
    attention.set_weights([*heads, w["mix"].numpy().reshape(HEADS, head, width)])
    for number, norm in enumerate(norms, 1):
        norm.set_weights([w[f"norm{number}_scale"], w[f"norm{number}_shift"]])
    wide.set_weights([w["wide"]])
    narrow.set_weights([w["narrow"]])
    assert close(block(x), outputs)


def hand_counts(d: int) -> dict[str, int]:
    """Parameters of one block at d_model d: norms, projections of 8 heads of d/8, mixing, taps,
    feed-forward."""
    layer_norms, rms_norms, square, taps = 2 * 2 * d, 2 * d, d * d, 3 * d
    attention = 3 * square + square
    rest = layer_norms + 2 * 4 * square
    return {
        "transformer": layer_norms + attention + 2 * 4 * square,
        "transformer_gelu": layer_norms + attention + 2 * 4 * square,
        "transformer_pp": rms_norms + attention + 3 * 3 * square,
        "multi_query": rest + 2 * square + 2 * d * d // 8,
        "grouped_query": rest + 2 * square + 2 * d * (2 * d // 8),
        "primer_ez": layer_norms + attention + 3 * taps + 2 * 4 * square,
        "primer": (layer_norms + 2 * (square + taps) + 8 * (d // 8) ** 2 + square + 2 * 4 * square),
    }


@pytest.mark.parametrize("name", SEEDS)
@pytest.mark.parametrize("d", [64, 256])
def test_parameters_are_those_counted_by_hand(name: str, d: int) -> None:
    graph, layers, length, vocabulary = graph_of(name), 3, 32, 256
    block = sum(math.prod(spec.shape) for spec in weight_specs(graph, d))
    assert block == hand_counts(d)[name]
    embeddings, final_norm = (vocabulary + length) * d, 2 * d
    assert static_cost(graph, d, layers, length, vocabulary).parameters == (
        layers * hand_counts(d)[name] + embeddings + final_norm
    )


@pytest.mark.parametrize("name", SEEDS)
def test_flops_are_those_of_the_products_and_little_more(name: str) -> None:
    """Products counted by hand: every weight but norms' and taps' meets each token once; scores and
    their use meet each of T keys in each of d channels; logits meet the vocabulary."""
    d, layers, length, vocabulary = 256, 3, 64, 256
    graph = graph_of(name)
    matrices = sum(
        math.prod(spec.shape) for spec in weight_specs(graph, d) if spec.init == "fan_in"
    )
    products = layers * (2 * matrices + 2 * 2 * length * d) + 2 * vocabulary * d
    counted = static_cost(graph, d, layers, length, vocabulary).flops_per_token
    assert products < counted < 1.05 * products


def test_costs_grow_as_their_arguments_do() -> None:
    graph = graph_of("transformer")
    one, two = (static_cost(graph, 64, layers, 32, 256) for layers in (1, 2))
    assert two.parameters - one.parameters == hand_counts(64)["transformer"]
    assert two.activation_bytes > 1.8 * one.activation_bytes
    longer = static_cost(graph, 64, 1, 64, 256)
    assert longer.flops_per_token > one.flops_per_token
    assert longer.activation_bytes > 2 * one.activation_bytes


def test_comments_fit_a_terminal() -> None:
    lines = [line for name in seed_names() for line in seed_text(name).splitlines()]
    assert [line for line in lines if line.startswith("#") and len(line) > 80] == []


def test_headers_say_what_the_files_do() -> None:
    for name in SEEDS:
        text = seed_text(name)
        assert "1/sqrt(d_head), where a head is d1 wide" in text
        for width in WIDTHS:
            dna = load_seed(name, width)
            assert 1 / math.sqrt(width / HEADS) in dna.constants
            heads = math.prod(
                row.branch
                for each in dna.subroutines
                for row in each.instructions
                if row.branch > 1
            )
            assert (dna.dims[1], heads) == (8 // HEADS, HEADS)
    transformer = load_seed("transformer")
    assert len(transformer.subroutines) == 10
    assert not [row for row in transformer.subroutines[1].instructions if row.op == "SHIFT"]
    assert max(transformer.dims) == 4 * transformer.dims[0]
    pp = load_seed("transformer_pp")
    allowed = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
    assert pp.dims[2] == 3 * pp.dims[0] == min(allowed, key=lambda dim: abs(dim - 8 * 8 / 3))
    gelu = load_seed("transformer_gelu")
    assert {0.5, math.sqrt(2 / math.pi), 0.044715} < set(gelu.constants)
    dense = [name for name in seed_names() if not load_seed(name).counts]
    assert sorted(SEEDS) == [name for name in dense if "campaign" not in name]


@pytest.mark.parametrize("mask_first", [False, True])
@pytest.mark.parametrize("name", SEEDS)
def test_large_scores_do_not_overflow(name: str, mask_first: bool) -> None:
    """The program as written overflows; the lowered block and its gradients are finite."""
    text = render(load_seed(name))
    if mask_first:
        text = text.replace("EXP(x)", "MASK(x)").replace("MASK(exponential)", "EXP(exponential)")
    dna = parse(text)
    graph = build(dna)
    assert isinstance(graph, Graph)
    weights, by_name = named_weights(name, graph, 64)
    weights = [100 * w if w is by_name["query"] or w is by_name["key"] else w for w in weights]
    x = random_input(64)
    block = block_function(graph, 64)
    output, gradients = value_and_gradients(lambda: block(x, weights), [x, *weights])
    assert np.isfinite(output).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    large = by_name | {label: 100 * by_name[label] for label in ("query", "key")}
    assert np.abs(output - BLOCKS[name][0](x, large)).max() <= 1e-3
    written = interpret(dna, x.numpy(), by_site(dna, [weight.numpy() for weight in weights]))
    assert not np.isfinite(written).all()


def test_scores_of_any_size_see_no_future() -> None:
    """Where visible scores lie far below what stands for invisible ones, these stay invisible."""
    text = """
        dims d0=8
        constants c0=-1e36
        main(x, y):
          scores = T-MAT MUL(x, x)
          size = ABS(scores)
          low = C MUL(size) constant=c0
          exponential = EXP(low)
          seen = MASK(exponential)
          total = RED SUM(seen)
          weights = DIVIDE(seen, total)
          out = MAT MUL(weights, x)
    """
    graph = build(parse(text))
    assert isinstance(graph, Graph)
    block, x = block_function(graph, 8), random_input(8)
    other = tf.concat([x[:, :5], 1 + x[:, 5:]], axis=1)
    np.testing.assert_array_equal(block(x, [])[:, :5], block(other, [])[:, :5])


def test_a_norm_of_equal_channels_is_finite() -> None:
    for name in SEEDS:
        graph, x = graph_of(name), tf.ones((1, 3, 64))
        block, (weights, _) = block_function(graph, 64), named_weights(name, graph, 64)
        output, gradients = value_and_gradients(partial(block, x, weights), [x, *weights])
        assert np.isfinite(output).all()
        assert all(np.isfinite(gradient).all() for gradient in gradients)
