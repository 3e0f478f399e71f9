"""Routed calls by every dispatch strategy: trees of heads and experts, shapes known late,
XLA, gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from primitives import DNA, Graph, build, parse
from primitives.kernels.balancing import Run
from primitives.lowering.dispatch import Kind, LoweringOptions
from primitives.lowering.layer import block_function
from tests.primitives.call_sites import by_site, random_weights
from tests.reference.interpreter import interpret
from tests.reference.random_programs import MIXTURE, PRODUCT_KEYS, TOP_2, TREE

KINDS: tuple[Kind, ...] = ("every", "blocks", "entries", "runs")
WIDTH, VOCABULARY = 8, 99
BANKS = "dims d0=8 d1=1\nconstants c0=0.0 c1=0.5\ncounts n0=4 n1=2 n2=1 n3=8\n"

IN_HEADS = """main(x, y):
  heads = inner(x) branch=2
  wide = CONV 1X1(heads) dim=d0
  out = ADD(x, wide)

inner(x, y):
"""
EXPERT = """
expert(x, y):
  wide = CONV 1X1(x) dim=d0
  active = SQUARE(wide)
  out = CONV 1X1(active) dim=d0
"""
ROUTER = """
router(x, y):
  scores = SCORE(x) count=n0
  top = TOP_K(scores) count=n1
  out = SIGMOID(top)
"""

NOBODY = "gates that are open for nobody"
PROGRAMS = {
    "top-2": TOP_2,
    "product keys": PRODUCT_KEYS,
    "tree in heads": TREE,
    "mixture": MIXTURE,
    "experts in heads in experts in heads": parse(
        f"""{BANKS}
        {IN_HEADS}
          gates = router(x)
          out = group(x, gates) branch=routed

        group(x, y):
          sides = side(x) branch=2
          out = CONV 1X1(sides) dim=d1

        side(x, y):
          gates = router(x)
          some = CONV 1X1(x) dim=d1
          out = expert(some, gates) branch=routed
        {EXPERT}{ROUTER}"""
    ),
    "experts in experts in experts": parse(
        f"""{BANKS}
        main(x, y):
          gates = router(x)
          fed = first(x, gates) branch=routed
          out = ADD(x, fed)

        first(x, y):
          gates = SCORE(x) count=n1
          deeper = second(x, gates) branch=routed
          again = router(deeper)
          leaves = expert(deeper, again) branch=routed
          out = ADD(x, leaves)

        second(x, y):
          gates = router(x)
          out = expert(x, gates) branch=routed
        {EXPERT}{ROUTER}"""
    ),
    "entries of heads whose indices are not": parse(
        f"""{BANKS}
        {IN_HEADS}
          gates = choice(x) branch=2
          out = expert(x, gates) branch=routed

        choice(x, y):
          ids = HASH(x) count=n0
          scores = SCORE(x) count=n0
          out = TAKE(scores, ids)
        {EXPERT}"""
    ),
    "pairs of heads whose indices are not": parse(
        f"""{BANKS}
        main(x, y):
          gates = choice(x) branch=2
          fed = expert(x, gates) branch=routed
          out = ADD(x, fed)

        choice(x, y):
          ids = HASH(x) count=n0
          scores = SCORE(x) count=n0
          taken = TAKE(scores, ids)
          out = PAIR(taken, taken)
        {EXPERT}"""
    ),
    "experts that do not differ, in heads": parse(
        f"""{BANKS}
        {IN_HEADS}
          gates = router(x)
          ids = HASH(x) count=n0
          half = square(x, gates) branch=routed
          rest = square(x, ids) branch=routed
          all = ADD(half, rest)
          out = SCALE(all)

        square(x, y):
          out = SQUARE(x)
        {ROUTER}"""
    ),
    "experts that do not differ, of heads that do not": parse(
        f"""{BANKS}
        {IN_HEADS}
          ids = HASH(x) count=n0
          out = square(x, ids) branch=routed

        square(x, y):
          out = SQUARE(x)
        """
    ),
    "rectified gates": parse(
        f"""{BANKS}
        main(x, y):
          scores = SCORE(x) count=n0
          gates = MAX(scores) constant=c0
          fed = expert(x, gates) branch=routed
          out = ADD(x, fed)
        {EXPERT}"""
    ),
    "rectified gates in heads, of experts in rectified ones": parse(
        f"""{BANKS}
        {IN_HEADS}
          gates = open(x)
          out = group(x, gates) branch=routed

        group(x, y):
          sides = side(x) branch=2
          scaled = SCALE(sides)
          out = CONV 1X1(scaled) dim=d1

        side(x, y):
          gates = open(x)
          some = CONV 1X1(x) dim=d1
          out = expert(some, gates) branch=routed

        open(x, y):
          scores = SCORE(x) count=n0
          out = MAX(scores) constant=c0
        {EXPERT}"""
    ),
    "steps with a slope": parse(
        f"""{BANKS}
        main(x, y):
          score = SCORE(x) count=n2
          go = STEP(score)
          chance = SIGMOID(score)
          fixed = STOP_GRAD(chance)
          slope = DIFFERENCE(chance, fixed)
          gate = ADD(go, slope)
          second = expert(x, gate) branch=routed
          out = ADD(x, second)
        {EXPERT}"""
    ),
    NOBODY: parse(
        f"""{BANKS}
        main(x, y):
          scores = SCORE(x) count=n0
          least = MIN(scores) constant=c0
          gates = MAX(least) constant=c0
          fed = expert(x, gates) branch=routed
          out = ADD(x, fed)
        {EXPERT}"""
    ),
    "rectified gates that two calls weigh differently": parse(
        f"""{BANKS}
        main(x, y):
          scores = SCORE(x) count=n0
          gates = MAX(scores) constant=c0
          fed = expert(x, gates) branch=routed
          again = SQUARE(gates)
          more = expert(x, again) branch=routed
          out = ADD(fed, more)
        {EXPERT}"""
    ),
    "a loss in heads": parse(
        f"""{BANKS}
        main(x, y):
          scores = SCORE(x) count=n0
          heads = SPARSITY_LOSS(scores) constant=c1 count=n1 branch=2
          fed = expert(x, heads) branch=routed
          out = ADD(x, fed)
        {EXPERT}"""
    ),
}


def graph_of(dna: DNA) -> Graph:
    graph = build(dna)
    assert isinstance(graph, Graph), graph
    return graph


class Sample:
    """A program with weights, two sequences of five tokens and what the interpreter gives."""

    def __init__(self, dna: DNA) -> None:
        rng = np.random.default_rng(0)
        self.graph = graph_of(dna)
        weights = random_weights(self.graph, WIDTH, rng)
        self.x, self.tokens = rng.standard_normal((2, 5, WIDTH)), rng.integers(0, 2**20, (2, 5))
        self.expected = interpret(dna, self.x, by_site(dna, weights), self.tokens)
        self.weights = [tf.constant(weight) for weight in weights]

    def call(
        self, kind: Kind, x: Any, tokens: Any, weights: Any = None, training: bool = False
    ) -> tf.Tensor:
        block = block_function(self.graph, WIDTH, LoweringOptions(2, 5, kind=kind, dynamic=True))
        return block(x, self.weights if weights is None else weights, Run(training, tokens, seed=7))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_experts_and_heads_nest(name: str, kind: Kind) -> None:
    sample = Sample(PROGRAMS[name])
    made = sample.call(kind, tf.constant(sample.x), tf.constant(sample.tokens))
    np.testing.assert_allclose(made, sample.expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("name", PROGRAMS)
def test_sizes_may_be_unknown_until_it_runs(name: str, kind: Kind) -> None:
    sample = Sample(PROGRAMS[name])
    traced = tf.function(
        lambda x, tokens: sample.call(kind, x, tokens),
        input_signature=[
            tf.TensorSpec((None, None, WIDTH), tf.float64), tf.TensorSpec((None, None), tf.int64)
        ],
        autograph=False,
    )  # fmt: skip
    for rows, length in ((2, 5), (1, 5), (2, 1)):
        made = traced(sample.x[:rows, :length], sample.tokens[:rows, :length])
        expected = sample.expected[:rows, :length]
        np.testing.assert_allclose(made, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_xla_compiles_them(kind: Kind) -> None:
    sample = Sample(PROGRAMS["experts in heads in experts in heads"])
    compiled = tf.function(
        lambda x, tokens: sample.call(kind, x, tokens), jit_compile=True, autograph=False
    )
    made = compiled(tf.constant(sample.x), tf.constant(sample.tokens))
    np.testing.assert_allclose(made, sample.expected, rtol=1e-9, atol=1e-9)


def gradients(sample: Sample, kind: Kind) -> list[npt.NDArray[np.float64]]:
    """Of a mix of outputs, by inputs and weights."""
    mix = np.random.default_rng(1).standard_normal(sample.x.shape)
    watched = [tf.constant(sample.x), *sample.weights]
    with tf.GradientTape() as tape:
        tape.watch(watched)
        x, *weights = watched
        tokens = tf.constant(sample.tokens)
        total = tf.reduce_sum(sample.call(kind, x, tokens, weights, training=True) * mix)
    made = tape.gradient(total, watched, unconnected_gradients="zero")
    return [np.array(tf.convert_to_tensor(gradient)) for gradient in made]


@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients_are_those_of_running_every_expert(name: str) -> None:
    sample = Sample(PROGRAMS[name])
    first, *others = (gradients(sample, kind) for kind in KINDS)
    unread = len(first) - sum(bool(gradient.any()) for gradient in first)
    assert unread <= 1 or name == NOBODY
    for other in others:
        for mine, expected in zip(other, first, strict=True):
            np.testing.assert_allclose(mine, expected, rtol=1e-8, atol=1e-9)


def test_buffers_with_room_for_all_drop_nothing() -> None:
    """In training, with as many places for each expert as a sequence has tokens."""
    for name in ("top-2", "tree in heads", "experts in heads in experts in heads"):
        sample = Sample(PROGRAMS[name])
        options = LoweringOptions(2, 5, capacity_factor=4.0, kind="blocks")
        block, run = block_function(sample.graph, WIDTH, options), Run(training=True)
        made = block(tf.constant(sample.x), sample.weights, run)
        np.testing.assert_allclose(made, sample.expected, rtol=1e-9, atol=1e-9)
