"""Bytes that a forward pass moves: counted by hand, and what FLOPs do not show."""

from __future__ import annotations

import pytest

from primitives import Graph, build, parse
from primitives.lowering.cost import Cost, static_cost
from primitives.lowering.dispatch import Kind, LoweringOptions, strategies

WIDTH, LENGTH, TOKENS = 32, 64, 1024

ROUTED = """
dims d0=8
constants c0=0.0
counts n0={rows} n1=8 n2=1
main(x, y):
  scores = {scores}
  gates = TOP_K(scores) count=n1
  fed = expert(x, gates) branch=routed
  out = ADD(x, fed)
pairs(x, y):
  first = SCORE(x) count=n0
  second = SCORE(x) count=n0
  out = PAIR(first, second)
expert(x, y):
  hidden = SCORE(x) count=n2
  out = CONV 1X1(hidden) dim=d0
"""


def graph_of(text: str) -> Graph:
    graph = build(parse(text))
    assert isinstance(graph, Graph), graph
    return graph


def cost_of(text: str, kind: Kind | None = None, factor: float | None = None) -> Cost:
    options = LoweringOptions(16, LENGTH, factor, kind)
    return static_cost(graph_of(text), WIDTH, 1, LENGTH, 0, options)


def test_bytes_are_those_that_one_counts() -> None:
    """A projection and a sum: x once and twice, two results; around the block 8 d_model."""
    text = """
    dims d0=8
    constants c0=0.0
    main(x, y):
      wide = CONV 1X1(x) dim=d0
      out = ADD(x, wide)
    """
    weights = WIDTH * WIDTH + (LENGTH + 2) * WIDTH
    block = WIDTH + 2 * WIDTH + 3 * WIDTH  # the input itself, the projection, the sum
    assert cost_of(text).bytes_per_token == round(4 * (block + 8 * WIDTH + weights / TOKENS))


def test_sixty_thousand_scores_cost_bytes_more_than_flops() -> None:
    """Against 1,024 experts, product keys of 65,536 multiply some more, and move their sums."""
    few, many = (cost_of(ROUTED.format(rows=rows, scores="pairs(x)")) for rows in (32, 256))
    assert many.flops_per_token < 20 * few.flops_per_token
    assert many.bytes_per_token > 25 * few.bytes_per_token
    assert many.bytes_per_token > 2 * 4 * 65536  # the sums, written and read


def test_copies_of_weights_are_moved() -> None:
    """8 entries of a token have copies of 2 d_model weights each, read and written."""
    text = ROUTED.format(rows=8, scores="pairs(x)")
    copies = cost_of(text, "entries").bytes_per_token - 4 * 2 * 8 * 2 * WIDTH
    assert 0 < copies < cost_of(text, "every").bytes_per_token


def test_copies_of_weights_are_held_for_the_backward_pass() -> None:
    """JAX held them: with PEER at 256 channels, 64 MB for each of two matrices of a block."""
    text = ROUTED.format(rows=8, scores="pairs(x)")
    copies = 8 * 2 * WIDTH
    scores, rows = 8 + 8 + 64 + 8, 8 * (WIDTH + 1 + WIDTH)
    block = WIDTH + scores + rows + WIDTH + WIDTH  # the input, the experts' sum, the residual
    expected = 4 * LENGTH * (block + copies + 2 * WIDTH)
    assert cost_of(text, "entries").activation_bytes == expected


@pytest.mark.parametrize("factor", [None, 1.25])
def test_each_block_has_a_copy_of_its_experts_weights(factor: float | None) -> None:
    """Unless each expert has one buffer of a fixed size, which its own weights multiply."""
    text = ROUTED.format(rows=8, scores="pairs(x)")
    options = LoweringOptions(16, LENGTH, factor, "blocks")
    (strategy,) = strategies(graph_of(text).nodes, WIDTH, options, rewritten=False).values()
    copies = strategy.rows / strategy.block * 2 * WIDTH if factor is None else 0
    block = WIDTH + (8 + 8 + 64 + 8) + strategy.rows * (WIDTH + 1 + WIDTH) + WIDTH + WIDTH
    expected = 4 * LENGTH * (block + copies + 2 * WIDTH)
    made = cost_of(text, "blocks", factor)
    assert made.activation_bytes == pytest.approx(expected, abs=4)
    moved = cost_of(text, "every").bytes_per_token
    assert made.bytes_per_token < moved
