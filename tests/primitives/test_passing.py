"""Tokens that pass a block by: what a gate closes is not computed, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from primitives import Graph, build
from primitives.kernels.balancing import Run
from primitives.lowering.cost import static_cost
from primitives.lowering.dispatch import Kind, LoweringOptions, strategies
from primitives.lowering.emit import emit
from primitives.lowering.layer import block_function
from primitives.lowering.rewrite import lowered
from primitives.lowering.weights import weight_specs
from primitives.programs.seeds import load_seed

WIDTH, BATCH, LENGTH = 16, 3, 12


def depths(share: float) -> Graph:
    dna = load_seed("mixture_of_depths")
    graph = build(replace(dna, constants=(*dna.constants[:3], share), every=1))
    assert isinstance(graph, Graph)
    return graph


HALF = depths(0.5)


def passed(level: float, options: LoweringOptions, training: bool = False) -> list[Any]:
    """The output and the gradients by input and weights, with the threshold at a level."""
    rng = np.random.default_rng(0)
    specs = weight_specs(HALF, WIDTH)
    values = [rng.standard_normal(spec.shape) * 0.3 for spec in specs]
    for place, spec in enumerate(specs):
        if spec.name.endswith("threshold"):
            values[place] = np.full(spec.shape, level)
    watched = [tf.constant(each) for each in (rng.standard_normal((BATCH, LENGTH, WIDTH)), *values)]
    mix = rng.standard_normal((BATCH, LENGTH, WIDTH))
    block = block_function(HALF, WIDTH, options)
    with tf.GradientTape() as tape:
        tape.watch(watched)
        output = block(watched[0], watched[1:], Run(training, seed=1))
        total = tf.reduce_sum(output * mix)
    made = tape.gradient(total, watched, unconnected_gradients="zero")
    return [np.array(output), *(np.array(tf.convert_to_tensor(each)) for each in made)]


def options(kind: Kind | None, factor: float | None = None) -> LoweringOptions:
    return LoweringOptions(BATCH, LENGTH, factor, kind, dynamic=factor is None)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("level", [0.0, 0.5, 0.6, 2.0])
def test_values_and_gradients_are_those_of_running_all(level: float, training: bool) -> None:
    """From a gate that is open for all to one that is open for none."""
    expected = passed(level, options("every"), training)
    for mine, theirs in zip(passed(level, options(None), training), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-10)


def test_rotary_queries_see_all_rows() -> None:
    """They are rotated by where they stand: attention runs on all rows, what follows does not."""
    expected = passed(0.5, replace(options("every"), rotary=True))
    for mine, theirs in zip(
        passed(0.5, replace(options(None), rotary=True)), expected, strict=True
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-10)
    lines = emit(HALF, WIDTH, options=replace(options(None), rotary=True)).lines
    assert any("pack_rows(main_heads" in line for line in lines)
    assert not any("positions=" in line for line in lines)


def test_a_capacity_drops_the_last_tokens_of_a_sequence_in_training_alone() -> None:
    """The gate is open for all; places are for three quarters of a sequence's 12 tokens."""
    every = passed(0.0, options("every"))[0]
    tight = options(None, 1.5)
    np.testing.assert_allclose(passed(0.0, tight)[0], every, rtol=1e-9, atol=1e-10)
    trained = passed(0.0, tight, training=True)[0]
    np.testing.assert_allclose(trained[:, :9], every[:, :9], rtol=1e-9, atol=1e-10)
    assert (np.abs(trained[:, 9:] - every[:, 9:]).max(axis=-1) > 1e-3).all()


def test_xla_compiles_a_fixed_capacity() -> None:
    """With as many places as the gate's share of a sequence and half as many again."""
    compiled = tf.function(lambda: passed_under_xla(), jit_compile=True, autograph=False)
    np.testing.assert_allclose(compiled(), passed_under_xla(), rtol=1e-9, atol=1e-10)


def passed_under_xla() -> tf.Tensor:
    rng = np.random.default_rng(1)
    weights = [
        tf.constant(rng.standard_normal(spec.shape) * 0.3) for spec in weight_specs(HALF, WIDTH)
    ]
    block = block_function(HALF, WIDTH, options(None, 1.5))
    x = tf.constant(rng.standard_normal((BATCH, LENGTH, WIDTH)))
    return block(x, weights, Run(True, seed=1))


def test_queries_and_the_feed_forward_pass_by_and_keys_and_values_do_not() -> None:
    lines = emit(HALF, WIDTH, options=options(None)).lines
    (projected,) = (line for line in lines if "project_all(" in line)
    assert "project_all(main_normed," in projected and "query" not in projected
    assert any(line.startswith("self_attention_query = project(main_normed_pack") for line in lines)
    assert sum("unpack_rows(" in line for line in lines) == 2


def test_what_passes_by_is_not_charged() -> None:
    """Of a block's 12 d^2 weights and 4 T d products a token, keys and values, 2 d^2, see all."""
    width, length = 64, 32
    costs = [
        static_cost(HALF, width, 1, length, 0, LoweringOptions(4, length, kind=kind, dynamic=True))
        for kind in ("every", None)
    ]
    saved = costs[0].flops_per_token - costs[1].flops_per_token
    assert saved == pytest.approx(0.5 * (2 * 10 * width**2 + 4 * length * width), rel=0.05)


def test_a_call_alone_is_left_to_runs() -> None:
    """A cascade's first stage and its attention are for all tokens."""
    graph = build(load_seed("cascade"))
    assert isinstance(graph, Graph)
    (chosen,) = strategies(lowered(graph), 256, LoweringOptions(dynamic=True)).values()
    assert chosen.kind == "runs" and not chosen.settled
