"""Norms and attention that lowering finds in programs, and computes with gradients of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from primitives.graph.build import Graph, Node, build
from primitives.kernels import dense as kernels
from primitives.kernels.dense import attention, centred, flash_attention, over_rms
from primitives.language.dna import DNA
from primitives.language.text import parse, render
from primitives.lowering.layer import block_function
from primitives.lowering.rewrite import ATTENTION, CENTRED, OVER_RMS, RELU, SOFTMAX, lowered
from primitives.ops.state import BLOCK, COUNT, KEYS, StateType
from primitives.programs.seeds import load_seed
from tests.primitives.call_sites import by_site, random_weights
from tests.reference.interpreter import interpret
from tests.reference.random_programs import DENSE_SEEDS


def drawn(*shape: int, seed: int = 0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


def gradients(function, arguments, upstream):
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        y = function(*arguments)
    return [y, *tape.gradient(y, arguments, upstream)]


def plain_attention(q, k, v, causal=True):
    scores = tf.matmul(q, k, transpose_b=True)
    if causal:
        visible = tf.linalg.band_part(tf.ones_like(scores), -1, 0) > 0
        scores = tf.where(visible, scores, -1e30)
    return tf.matmul(tf.nn.softmax(scores), v)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("shape", [(2, 5, 4), (2, 3, 5, 4), (2, 3, 2, 5, 4)])
def test_attention_and_its_gradient(shape, causal):
    q, k = drawn(*shape) / 2, drawn(*shape)[..., ::-1]
    v, upstream = drawn(*shape[:-1], 6), drawn(*shape[:-1], 6) * 2
    theirs = gradients(lambda *a: plain_attention(*a, causal), [q, k, v], upstream)
    compiled = tf.function(
        lambda *given: gradients(lambda *a: attention(*a, causal), list(given), upstream)
    )
    for ours, other in zip(compiled(q, k, v), theirs, strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-4, atol=1e-5)
    rough = gradients(lambda *a: attention(*a, causal, bfloat16=True), [q, k, v], upstream)
    for ours, other in zip(rough, theirs, strict=True):
        assert ours.dtype == tf.float32
        # A rounded product is wrong by up to 2**-8 of itself, a sum of several by as much of each.
        np.testing.assert_allclose(ours, other, rtol=0, atol=2**-6 * np.abs(other).max())
        assert np.abs(ours - other).max() > 0, "products in bfloat16 are not float32's"


@pytest.mark.parametrize(
    ("shape", "values", "taken", "causal"),
    [((2, 5, 8), 8, True, True), ((2, 3, 5, 8), 8, True, False),
     ((2, 3, 2, 5, 16), 16, True, True), ((2, 3, 5, 4), 4, False, True),
     ((2, 3, 5, 8), 16, False, False), ((1, 5, 136), 136, False, True)],
)  # fmt: skip
def test_flash_attention_and_its_gradient(shape, values, taken, causal, monkeypatch):
    """On a CPU Keras' own attention stands in for the kernel, of which head sizes it takes alone
    may be asked."""
    asked = []
    keras_own = kernels.ops.dot_product_attention
    monkeypatch.setattr(
        kernels.ops, "dot_product_attention", lambda *a, **k: asked.append(1) or keras_own(*a, **k)
    )
    q, k = drawn(*shape) / shape[-1] ** 0.5, drawn(*shape, seed=1)
    v, upstream = drawn(*shape[:-1], values, seed=2), drawn(*shape[:-1], values, seed=3)
    theirs = gradients(lambda *a: plain_attention(*a, causal), [q, k, v], upstream)
    ours = gradients(lambda *a: flash_attention(*a, causal, bfloat16=True), [q, k, v], upstream)
    assert bool(asked) == taken
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape and one.dtype == tf.float32
        roundings = 8 * 2.0**-8 * np.abs(other).max()  # to bfloat16, of factors and products
        np.testing.assert_allclose(one, other, rtol=0, atol=roundings)
        assert np.abs(one - other).max() > 0, "products in bfloat16 are not float32's"


OVER_KEYS = StateType(KEYS, 0)


def over_all_keys(*last: Node) -> tuple[Node, ...]:
    """x, its scores with every position (nothing is masked), their softmax written out, and the
    nodes that follow."""
    rows = [
        ("INPUT", (), BLOCK), ("T-MAT MUL", (0, 0), OVER_KEYS), ("EXP", (1,), OVER_KEYS),
        ("RED SUM", (2,), StateType(COUNT, 1)), ("DIVIDE", (2, 3), OVER_KEYS),
    ]  # fmt: skip
    return (*(Node(op, reads, 0, (), made, op.lower()) for op, reads, made in rows), *last)


@pytest.mark.parametrize(
    ("nodes", "ops", "expected"),
    [
        (
            over_all_keys(Node("MAT MUL", (4, 0), 0, (), BLOCK, "out")),
            [ATTENTION],
            lambda x, weights: weights @ x,
        ),
        (
            over_all_keys(Node("RED MAX", (4,), 0, (), StateType(COUNT, 1), "largest"),
                          Node("MULTIPLY", (0, 5), 0, (), BLOCK, "out")),
            [SOFTMAX, "RED MAX"],
            lambda x, weights: weights.max(-1, keepdims=True) * x,
        ),
        (
            over_all_keys(Node("RED MEAN", (1,), 0, (), StateType(COUNT, 1), "mean"),
                          Node("MULTIPLY", (0, 5), 0, (), BLOCK, "out")),
            ["RED MEAN"],
            lambda x, weights: (x @ x.swapaxes(-1, -2)).mean(-1, keepdims=True) * x,
        ),
    ],
)  # fmt: skip
def test_where_nothing_is_masked_every_position_counts(nodes, ops, expected):
    """In a bidirectional task: a state over key positions that is open ranges over all of them."""
    graph = SimpleNamespace(nodes=nodes, hash="unmasked")
    assert set(ops) <= {node.op for node in lowered(graph)}
    x = np.random.default_rng(0).standard_normal((2, 5, 8))
    powers = np.exp(x @ x.swapaxes(-1, -2))
    weights = powers / powers.sum(-1, keepdims=True)
    made = block_function(graph, 8)(tf.constant(x), [])
    np.testing.assert_allclose(made, expected(x, weights), rtol=1e-9)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 0.0])
def test_over_rms_and_its_gradient(scale):
    """Its smallest mean square reached, passed, and at rows of zeros."""
    x, upstream, floor = drawn(2, 5, 8) * scale, drawn(2, 5, 8) - 0.5, 1e-2

    def plain(x):
        mean = tf.reduce_mean(tf.square(x), -1, keepdims=True)
        return x / tf.sqrt(tf.maximum(mean, floor))

    ours = gradients(lambda x: over_rms(x, floor), [x], upstream)
    for one, other in zip(ours, gradients(plain, [x], upstream), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_centred_and_its_gradient():
    x, upstream = drawn(2, 5, 8), drawn(2, 5, 8) - 0.5
    ours = gradients(centred, [x], upstream)
    theirs = gradients(lambda x: x - tf.reduce_mean(x, -1, keepdims=True), [x], upstream)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in DENSE_SEEDS if "campaign" not in name])
def test_seed_programs_have_them(name):
    """Those that people wrote: what a campaign found may compute its norms in another way."""
    ops = [node.op for node in lowered(build(load_seed(name)))]
    assert (ops.count(ATTENTION), ops.count(OVER_RMS)) == (1, 2)
    assert ops.count(CENTRED) == (0 if name == "transformer_pp" else 2)
    assert not {"RED SUM", "RED MEAN", "DIVIDE", "ABS ROOT", "T-MAT MUL", "MAT MUL"} & set(ops)


BANKS = "dims d0=8\nconstants c0=1e-06 c1=0.0 c2=-1.0\n"
NORM = "  m = RED MEAN(s)\n  f = MAX(m) constant=c0\n  r = ABS ROOT(f)\n  out = DIVIDE(x, r)\n"
ATTEND = (
    "  p = T-MAT MUL(q, x)\n  e = EXP(p)\n  v = MASK(e)\n  t = RED SUM(v)\n  w = DIVIDE(v, t)\n"
)


@pytest.mark.parametrize(
    ("body", "op"),
    [
        (f"  s = SQUARE(x)\n{NORM}", OVER_RMS),
        (f"  s = ABS(x)\n{NORM}", "DIVIDE"),
        (f"  s = SQUARE(x)\n{NORM}".replace("=c0", "=c1"), "DIVIDE"),  # 0 / 0 is its own affair
        (f"  s = SQUARE(x)\n{NORM}".replace("=c0", "=c2"), "DIVIDE"),
        (f"  z = SIN(x)\n  s = SQUARE(z)\n{NORM}", "DIVIDE"),
        (f"  z = SIN(x)\n  s = MULTIPLY(x, z)\n{NORM}", "DIVIDE"),
        ("  z = SIN(x)\n  m = RED MEAN(x)\n  out = DIFFERENCE(x, m)\n", CENTRED),
        ("  z = SIN(x)\n  m = RED MEAN(z)\n  out = DIFFERENCE(x, m)\n", "DIFFERENCE"),
        ("  m = RED MEAN(x)\n  out = DIFFERENCE(m, x)\n", "DIFFERENCE"),
        ("  out = MAX(x) constant=c1\n", RELU),
        ("  out = MAX(x) constant=c0\n", "MAX"),
        (f"  q = SIN(x)\n{ATTEND}  out = MAT MUL(w, x)\n", ATTENTION),
        (f"  q = SIN(x)\n{ATTEND}  out = MAT MUL(v, x)\n", "MAT MUL"),
        (f"  q = SIN(x)\n{ATTEND}  a = MAT MUL(w, x)\n  out = MAT MUL(w, a)\n", "MAT MUL"),
    ],
)
def test_only_they_are_replaced(body, op):
    nodes = lowered(build(parse(f"{BANKS}main(x, y):\n{body}")))
    assert nodes[-1].op == op


@pytest.mark.parametrize(
    "body",
    [
        "  r = ABS ROOT(x)\n  out = DIVIDE(x, r)\n",
        "  s = RED SUM(x)\n  out = DIVIDE(x, s)\n",
        "  f = MAX(x) constant=c0\n  r = ABS ROOT(f)\n  out = DIVIDE(x, r)\n",
        "  m = RED MEAN(x)\n  f = MAX(m) constant=c0\n  r = ABS ROOT(f)\n  out = DIVIDE(x, r)\n",
        "  out = DIVIDE(x, x)\n",
        "  out = DIFFERENCE(x, x)\n",
    ],
)
def test_a_pattern_may_end_at_the_blocks_input(body):
    """The block's input reads nothing, so a pattern must not look for what it is made of."""
    same_as_interpreted(parse(f"{BANKS}main(x, y):\n{body}"))


PATTERNS = {
    "over rms": f"  s = SQUARE(x)\n{NORM}",
    "layer norm": "  a = RED MEAN(x)\n  d = DIFFERENCE(x, a)\n  s = MULTIPLY(d, x)\n"
    "  m = RED MEAN(s)\n  f = MAX(m) constant=c0\n  r = ABS ROOT(f)\n  out = DIVIDE(d, r)\n",
    "attention": f"  q = SIN(x)\n{ATTEND}  out = MAT MUL(w, x)\n",
    "attention, masked first": "  p = T-MAT MUL(x, x)\n  v = MASK(p)\n  e = EXP(v)\n"
    "  t = RED SUM(e)\n  w = DIVIDE(e, t)\n  out = MAT MUL(w, x)\n",
    "softmax of channels": "  e = EXP(x)\n  t = RED SUM(e)\n  out = DIVIDE(e, t)\n",
    "relu of a convolution": "  c = CONV 1X1(x) dim=d0\n  d = DCONV 3X1(c)\n"
    "  k = CONV 1X1(x) dim=d0\n  r = MAX(d) constant=c1\n  out = ADD(r, k)\n",
    "top scores": "  s = SCORE(x) count=n0\n  t = TOP_K(s) count=n1\n  m = RED SUM(t)\n"
    "  out = ADD(x, m)\n",
}


@pytest.mark.parametrize("name", PATTERNS)
def test_a_program_near_a_pattern_keeps_its_meaning(name):
    """Each pattern with one or two operands replaced by any earlier state, the block's input among
    them: what still has a type computes what the reference interpreter computes."""
    dna = parse(f"{BANKS}counts n0=128 n1=2\nmain(x, y):\n{PATTERNS[name]}")
    near = {build(each).hash: each for each in neighbours(dna) if isinstance(build(each), Graph)}
    assert len(near) > 3
    chosen = sorted(near)[:: 1 + len(near) // 40]
    for each in chosen:
        same_as_interpreted(near[each])


def neighbours(dna: DNA) -> Iterator[DNA]:
    main = dna.subroutines[0]
    places = [
        (number, operand) for number in range(len(main.instructions)) for operand in ("in1", "in2")
    ]
    for first, second in product(places, places):
        for one, other in product(range(first[0] + 2), range(second[0] + 2)):
            if first < second and 1 not in (one, other):  # states 0 and 1 are both the input
                rows = list(main.instructions)
                for (number, operand), state in ((first, one), (second, other)):
                    rows[number] = rows[number]._replace(**{operand: state})
                changed = replace(main, instructions=tuple(rows))
                yield replace(dna, subroutines=(changed, *dna.subroutines[1:]))


def same_as_interpreted(dna: DNA) -> None:
    graph = build(dna)
    assert isinstance(graph, Graph), graph
    rng = np.random.default_rng(0)
    weights = random_weights(graph, 8, rng)
    x = rng.standard_normal((2, 5, 8))
    expected = interpret(dna, x, by_site(dna, weights))
    made = np.array(block_function(graph, 8)(tf.constant(x), [tf.constant(w) for w in weights]))
    steady = np.isfinite(expected) & (np.abs(expected) < 1e6)
    np.testing.assert_allclose(
        made[steady], expected[steady], rtol=1e-6, atol=1e-6, err_msg=render(dna)
    )
