"""The state by which a block is remembered: the input of its feed-forward, found in the graph."""

from __future__ import annotations

import numpy as np
import pytest

from primitives import build, parse
from primitives.lowering.dispatch import LoweringOptions
from primitives.lowering.layer import initial_weights, lower
from primitives.lowering.memory import memory_of
from primitives.lowering.rewrite import lowered
from primitives.lowering.weights import weight_specs
from primitives.ops.state import BLOCK
from primitives.programs.seeds import load_seed, seed_names
from tests.reference.random_programs import programs, routed_programs

BANKS = "dims d0=8 d1=1 d2=32\nconstants c0=0.0 c1=0.5\n\n"
PARTS = """
attention(x, y):
  scores = T-MAT MUL(x, x)
  powers = EXP(scores)
  visible = MASK(powers)
  total = RED SUM(visible)
  weights = DIVIDE(visible, total)
  out = MAT MUL(weights, x)

feed_forward(x, y):
  wide = CONV 1X1(x) dim=d2
  active = MAX(wide) constant=c0
  out = CONV 1X1(active) dim=d0
"""

WRITTEN = {
    "attention and feed-forward side by side": (
        """main(x, y):
  before = SCALE(x)
  seen = attention(before)
  normed = SHIFT(x)
  fed = feed_forward(normed)
  both = ADD(seen, fed)
  out = ADD(x, both)
""",
        "main.normed",
    ),
    "a norm at the end": (
        """main(x, y):
  seen = attention(x)
  attended = ADD(x, seen)
  fed = feed_forward(attended)
  sum = ADD(attended, fed)
  out = SCALE(sum)
""",
        "main.attended",
    ),
    "no residual connection": (
        """main(x, y):
  seen = attention(x)
  normed = SCALE(seen)
  out = feed_forward(normed)
""",
        "main.normed",
    ),
    "feed-forward first": (
        """main(x, y):
  normed = SCALE(x)
  fed = feed_forward(normed)
  sum = ADD(x, fed)
  seen = attention(sum)
  out = ADD(sum, seen)
""",
        "main.normed",
    ),
    "no weights that mix channels": (
        """main(x, y):
  seen = attention(x)
  out = ADD(x, seen)
""",
        "main.out",
    ),
}


def state(graph):
    nodes = lowered(graph)
    return nodes[memory_of(nodes)]


@pytest.mark.parametrize("name", WRITTEN)
def test_of_written_blocks(name):
    text, expected = WRITTEN[name]
    used = [part for part in PARTS.split("\n\n") if part.split("(")[0].strip() + "(" in text]
    assert state(build(parse(BANKS + text + "\n" + "\n\n".join(used)))).name == expected


OTHERS = {
    "base": "main.attended", "primer": "main.attended", "mixture_of_depths": "x",
    "campaign_pp": "main.normed", "campaign_conv": "main.normed", "campaign_dense": "main.normed",
    "campaign_routed": "x",
    "soft_moe": "feed_forward.unit",
}  # fmt: skip
"""Where the feed-forward reads the residual stream itself, or the stream passes the block by."""


@pytest.mark.parametrize("name", seed_names())
def test_of_seed_programs(name):
    graph = build(load_seed(name, 16), bidirectional=True)
    assert state(graph).name == OTHERS.get(name, "main.renormed")


def test_every_program_gives_a_state_of_the_blocks_type():
    """And its function the same output with it as without."""
    for number, dna in enumerate([*programs(12, seed=3), *routed_programs(8, seed=3)]):
        graph = build(dna)
        assert state(graph).type is BLOCK
        if number % 4:
            continue
        rng, options = np.random.default_rng(0), LoweringOptions(2, 6)
        weights = initial_weights(weight_specs(graph, 16), rng)
        x = rng.standard_normal((2, 6, 16), np.float32)
        from primitives.kernels.balancing import Run

        run = Run(tokens=np.zeros((2, 6), np.int32))
        plain = lower(graph, 16, options).function(x, weights, run)
        y, memory = lower(graph, 16, options, with_memory=True).function(x, weights, run)
        np.testing.assert_array_equal(np.asarray(y), np.asarray(plain))
        assert tuple(memory.shape) == (2, 6, 16)


MARKED = """main(x, y):
  before = SCALE(x)
  seen = attention(before)
  attended = ADD(x, seen)
  kept = REMEMBER(attended)
  normed = SHIFT(kept)
  fed = feed_forward(normed)
  out = ADD(attended, fed)
"""


def test_a_program_may_mark_the_state():
    """The rule alone would take the input of the feed-forward. The mark computes nothing, and what
    the function remembers is the value of the marked state."""
    marked, plain = (
        build(parse(BANKS + text + PARTS))
        for text in (
            MARKED,
            MARKED.replace("  kept = REMEMBER(attended)\n", "").replace("(kept)", "(attended)"),
        )
    )
    assert state(marked).name == "main.kept" and state(plain).name == "main.normed"
    assert marked.hash != plain.hash
    options, rng = LoweringOptions(2, 6), np.random.default_rng(0)
    weights = initial_weights(weight_specs(marked, 16), rng)
    assert [w.shape for w in weight_specs(marked, 16)] == [w.shape for w in weight_specs(plain, 16)]
    x = rng.standard_normal((2, 6, 16), np.float32)
    y, memory = lower(marked, 16, options, with_memory=True).function(x, weights)
    other, _ = lower(plain, 16, options, with_memory=True).function(x, weights)
    np.testing.assert_array_equal(np.asarray(y), np.asarray(other))
    scale = weights[0]  # attention of x times its scale, by hand
    before = x * scale
    scores = np.exp(before @ before.swapaxes(1, 2)) * np.tril(np.ones((6, 6)))
    attended = x + scores / scores.sum(-1, keepdims=True) @ before
    np.testing.assert_allclose(np.asarray(memory), attended, rtol=1e-5, atol=1e-5)


def test_the_last_mark_counts():
    twice = MARKED.replace("feed_forward(normed)", "feed_forward(again)").replace(
        "  fed =", "  again = REMEMBER(normed)\n  fed ="
    )
    assert state(build(parse(BANKS + twice + PARTS))).name == "main.again"


def test_only_a_state_of_the_blocks_type_can_be_marked():
    wide = MARKED.replace("kept = REMEMBER(attended)", "kept = REMEMBER(total)").replace(
        "attended = ADD(x, seen)", "attended = ADD(x, seen)\n  total = RED SUM(attended)"
    )
    told = build(parse(BANKS + wide + PARTS))
    assert told.reason == "only a state of d_model channels can be remembered, not [T, 1]"
