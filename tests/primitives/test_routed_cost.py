"""What static cost charges for a routed call is what the lowered graph computes, and the cheapest
way of running it is chosen."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from primitives import DNA, Graph, build, parse, render
from primitives.kernels.balancing import Run
from primitives.lowering.cost import static_cost
from primitives.lowering.dispatch import Kind, LoweringOptions, regions, strategies
from primitives.lowering.layer import block_function
from primitives.lowering.rewrite import lowered
from tests.primitives.call_sites import random_weights
from tests.reference.random_programs import TREE

KINDS: tuple[Kind, ...] = ("every", "blocks", "entries", "runs")


def graph_of(dna: DNA) -> Graph:
    graph = build(dna)
    assert isinstance(graph, Graph), graph
    return graph


TOP_2_OF_8 = parse(
    """dims d0=8 d1=32
    constants c0=0.0
    counts n0=8 n1=2

    main(x, y):
      scores = SCORE(x) count=n0
      gates = TOP_K(scores) count=n1
      fed = expert(x, gates) branch=routed
      out = ADD(x, fed)

    expert(x, y):
      wide = CONV 1X1(x) dim=d1
      active = MAX(wide) constant=c0
      out = CONV 1X1(active) dim=d0
    """
)
NEURONS = parse(
    render(TOP_2_OF_8)
    .replace("d1=32", "d1=1")
    .replace("n0=8", "n0=1024")
    .replace("SCORE(x) count=n0", "SCORE(x) count=n0\n  pairs = PAIR(scores, scores)")
    .replace("TOP_K(scores)", "TOP_K(pairs)")
)
SOFT_MIXTURE = parse(render(TOP_2_OF_8).replace("expert(x, gates)", "expert(x, scores)"))


def operations(graph: Any) -> Iterator[tf.Operation]:
    """Those of a traced function and of all that it calls."""
    for operation in graph.get_operations():
        if "PartitionedCall" in operation.type:
            name = operation.get_attr("f").name
            yield from operations(graph._get_function(name).graph)
        else:
            yield operation


def counted(operation: tf.Operation) -> int:
    """FLOPs of products and sums of floats: 2 for each multiplication of two matrices' entries, one
    for each number that an elementwise op gives and a sum reads."""
    made = operation.outputs[0] if operation.outputs else None
    if made is None or not made.dtype.is_floating:
        return 0
    if "MatMul" in operation.type:
        left = operation.inputs[0].shape
        transposed = operation.node_def.attr["transpose_a"].b or operation.node_def.attr["adj_x"].b
        return 2 * made.shape.num_elements() * left[-2 if transposed else -1]
    if operation.type == "Einsum":
        return 2 * einsum_size(operation)
    if operation.type == "Sum":
        return int(operation.inputs[0].shape.num_elements())
    return made.shape.num_elements() if operation.type in ("Mul", "AddV2", "Maximum") else 0


def einsum_size(operation: tf.Operation) -> int:
    sides = operation.get_attr("equation").decode().split("->")[0].split(",")
    pairs = zip(sides, operation.inputs, strict=True)
    sizes = {
        letter: n for side, x in pairs for letter, n in zip(side, x.shape, strict=True)
    }  # fmt: skip
    return math.prod(sizes.values())


@pytest.mark.parametrize("factor", [None, 1.25])
@pytest.mark.parametrize("kind", [*KINDS, None])
@pytest.mark.parametrize("width", [32, 64])
def test_static_cost_is_what_the_lowered_graph_computes(
    kind: Kind | None, factor: float | None, width: int
) -> None:
    batch, length = 4, 32
    graph, options = graph_of(TOP_2_OF_8), LoweringOptions(batch, length, factor, kind)
    weights = random_weights(graph, width, np.random.default_rng(0))
    block = block_function(graph, width, options)
    concrete = tf.function(
        lambda x, weights: block(x, weights, Run(training=factor is not None)), autograph=False
    ).get_concrete_function(
        tf.TensorSpec((batch, length, width), tf.float32),
        [tf.TensorSpec(weight.shape, tf.float32) for weight in weights],
    )
    ran = sum(map(counted, operations(concrete.graph))) / (batch * length)
    charged = static_cost(graph, width, 1, length, 0, options).flops_per_token
    assert abs(ran - charged) <= 0.01 * charged, f"{ran} FLOPs a token, charged {charged}"


def test_each_strategy_is_charged_for_the_rows_that_it_computes() -> None:
    """8 rows a token for all experts; 2 and what fills up blocks, or buffers; 2 for copies."""
    graph = graph_of(TOP_2_OF_8)
    nodes, expert = lowered(graph), 2 * 2 * 64 * 256
    flops = {}
    for kind, factor in (("every", None), ("blocks", None), ("blocks", 1.25), ("entries", None)):
        options = LoweringOptions(4, 32, factor, kind)  # type: ignore[arg-type]
        (strategy,) = strategies(nodes, 64, options).values()
        flops[kind, factor] = static_cost(graph, 64, 1, 32, 0, options).flops_per_token
        assert flops[kind, factor] == pytest.approx(strategy.rows * expert, rel=0.02)
    rows = [round(value / expert, 1) for value in flops.values()]
    assert rows == [8.1, 2.5, 2.5, 2.0]


@pytest.mark.parametrize(
    ("dna", "tokens", "kind"),
    [(TOP_2_OF_8, 1024, "blocks"), (NEURONS, 1024, "entries"), (SOFT_MIXTURE, 1024, "every")],
)
def test_the_cheapest_strategy_is_chosen(dna: DNA, tokens: int, kind: Kind) -> None:
    """Wide experts in blocks; of very many narrow ones, copies; gates for all experts leave no
    choice."""
    chosen = strategies(lowered(graph_of(dna)), 64, LoweringOptions(8, tokens // 8)).values()
    assert [strategy.kind for strategy in chosen] == [kind]


def test_only_a_calls_own_weights_follow_the_tokens() -> None:
    """Which experts' weights a lowering copies: of the inner call too, and of none outside."""
    graph = graph_of(TREE)
    around = regions(graph.nodes)
    inside = [node.name for node, region in zip(graph.nodes, around, strict=True) if region >= 0]
    assert "expert.wide" in inside and "leaves.out" in inside
    assert "main.mixed" not in inside and "branches.scores" not in inside
