"""Bidirectional tasks: states over key positions that nothing masked are summed over all positions,
as the reference interpreter does it, and both sides are seen. A mask still hides what is later."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from primitives import DNA, Graph, IllTyped, build, parse
from primitives.kernels.balancing import Run
from primitives.lowering.dispatch import LoweringOptions
from primitives.lowering.layer import block_function
from primitives.programs.seeds import load_seed
from tests.primitives.call_sites import by_site, random_weights
from tests.primitives.test_causality import CAUSAL, LEAKS
from tests.reference.interpreter import Array, interpret
from tests.reference.random_programs import programs

BATCH, LENGTH, WIDTH = 2, 5, 16

pytestmark = pytest.mark.filterwarnings("ignore:You are using a softmax over axis")

BANKS = "dims d0=8 d1=1\nconstants c0=0.5\n"
SOFTMAX = "\nsoftmax(x, y):\n  e = EXP(x)\n  total = RED SUM(e)\n  out = DIVIDE(e, total)\n"
ATTENTION = f"""{BANKS}
main(x, y):
  heads = attend(x) branch=8
  mixed = CONV 1X1(heads) dim=d0
  out = ADD(x, mixed)

attend(x, y):
  query = CONV 1X1(x) dim=d1
  key = CONV 1X1(x) dim=d1
  value = CONV 1X1(x) dim=d1
  scores = T-MAT MUL(query, key)
  weights = softmax(scores)
  out = MAT MUL(weights, value)
{SOFTMAX}"""
MASKED = ATTENTION.replace(
    "weights = softmax(scores)", "seen = MASK(scores)\n  weights = softmax(seen)"
)
MIXED = f"""{BANKS}
main(x, y):
  scores = T-MAT MUL(x, x)
  small = TANH(scores)
  seen = MASK(small)
  again = MAT MUL(small, seen)
  both = T-MAT MUL(seen, again)
  mean = RED MEAN(both)
  largest = RED MAX(again)
  product = MAT MUL(both, x)
  sum = ADD(product, mean)
  out = ADD(sum, largest)
"""
"""Open and masked states in one product: where only the second factor is masked, all is visible."""


def graph_of(dna: DNA) -> Graph:
    graph = build(dna, bidirectional=True)
    assert isinstance(graph, Graph), graph
    return graph


def both_ways(dna: DNA, seed: int = 0) -> tuple[Array, Array, Array]:
    """The lowering's output and the interpreter's, and the former with another last token."""
    graph, rng = graph_of(dna), np.random.default_rng(seed)
    weights = random_weights(graph, WIDTH, rng)
    x = rng.standard_normal((BATCH, LENGTH, WIDTH))
    other = x.copy()
    other[:, -1] = rng.standard_normal((BATCH, WIDTH))
    block = block_function(graph, WIDTH, LoweringOptions(BATCH, LENGTH, kind="every"))
    tensors = [tf.constant(weight) for weight in weights]
    ours, changed = (np.array(block(tf.constant(each), tensors, Run())) for each in (x, other))
    reference = interpret(dna, x, by_site(dna, weights), bidirectional=True)
    return ours, reference, changed


def assert_close(ours: Array, theirs: Array, message: str = "") -> None:
    scale = np.abs(theirs).max()
    np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10 * scale, err_msg=message)


def test_unmasked_attention_is_for_bidirectional_tasks_alone() -> None:
    refused = build(parse(ATTENTION))
    assert isinstance(refused, IllTyped)
    assert refused.reason == (
        "a reduction over open key positions reads the future; MASK the state first"
    )
    ours, reference, changed = both_ways(parse(ATTENTION))
    assert_close(ours, reference)
    assert (np.abs(changed - ours).max(axis=(0, 2)) > 1e-6).all(), "some position sees one side"


def test_masked_attention_sees_one_side_in_any_task() -> None:
    ours, reference, changed = both_ways(parse(MASKED))
    assert_close(ours, reference)
    np.testing.assert_allclose(changed[:, :-1], ours[:, :-1], rtol=0, atol=1e-12)


def test_expert_choice_sees_both_sides() -> None:
    dna = load_seed("expert_choice")
    assert isinstance(build(dna), IllTyped) and "MASK" not in graph_of(dna).ops
    ours, reference, changed = both_ways(dna)
    assert_close(ours, reference)
    assert (np.abs(changed - ours).max(axis=(0, 2)) > 1e-6).all()


WRITTEN = {
    "mixed": MIXED,
    **{name: text for name, (text, _, _) in LEAKS.items()},
    **CAUSAL,
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_written_programs_are_what_the_interpreter_says(name: str) -> None:
    dna = parse(WRITTEN[name])
    if isinstance(build(dna, bidirectional=True), Graph):
        ours, reference, _ = both_ways(dna)
        assert_close(ours, reference)


def without_masks(dna: DNA, rng: random.Random) -> DNA:
    """The program with most of its masks turned into TANH."""
    subroutines = []
    for each in dna.subroutines:
        rows = tuple(
            row._replace(op="TANH") if row.op == "MASK" and rng.random() < 0.7 else row
            for row in each.instructions
        )
        subroutines.append(replace(each, instructions=rows))
    return replace(dna, subroutines=tuple(subroutines))


def test_random_programs_are_what_the_interpreter_says() -> None:
    rng, compared = random.Random(0), 0
    for seed, written in enumerate(programs(120, seed=3)):
        dna = without_masks(written, rng)
        if isinstance(build(dna), Graph) or isinstance(build(dna, bidirectional=True), IllTyped):
            continue
        ours, reference, _ = both_ways(dna, seed)
        if np.isfinite([ours, reference]).all() and np.abs(reference).max() < 1e6:
            compared += 1
            assert_close(ours, reference, f"seed {seed}")
    assert compared > 10
