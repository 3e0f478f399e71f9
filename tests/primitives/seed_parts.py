"""Parts of routed seed programs as programs of their own, and how to run them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from primitives import Graph, build, parse, render
from primitives.kernels.balancing import Run
from primitives.lowering.dispatch import Kind, LoweringOptions
from primitives.lowering.layer import lower
from primitives.lowering.weights import weight_specs
from primitives.programs.seeds import load_seed
from tests.reference.mixtures import Array, Ids

WIDTH, BATCH, LENGTH = 16, 2, 12
TASKS = np.array([[0, 0, 0, 5, 5, 5, 5, 2, 2, 2, 2, 2], [13, 3, 3, 3, 3, 3, 3, 1, 1, 1, 0, 0]])
"""Two are equal modulo 8."""
TOKENS = np.random.default_rng(3).integers(0, 256, (BATCH, LENGTH)) + 2**17 * TASKS
X = np.random.default_rng(1).standard_normal((BATCH, LENGTH, WIDTH)).astype(np.float32)


def part(name: str, *lines: str) -> Graph:
    """The seed program with these lines as its main: its routed feed-forward if none are given."""
    before, _, rest = render(load_seed(name, WIDTH)).partition("main(x, y):\n")
    after = rest.partition("\n\n")[2]
    main = "".join(f"  {line}\n" for line in lines or ("out = feed_forward(x)",))
    graph = build(parse(f"{before}main(x, y):\n{main}\n{after}"), bidirectional=True)
    assert isinstance(graph, Graph), graph
    return graph


def weights_of(graph: Graph, seed: int = 4) -> dict[str, Array]:
    """Random weights by name; states that training moves lie between 0.3 and 0.7."""
    rng = np.random.default_rng(seed)

    def drawn(name: str, shape: tuple[int, ...], fan_in: int) -> Array:
        if name.endswith("steps"):
            return rng.uniform(1000, 1500, shape).astype(np.float32)
        if name.endswith(("threshold", "bias", "sparsity_loss")):
            return rng.uniform(0.3, 0.7, shape).astype(np.float32)
        return (rng.standard_normal(shape) * fan_in**-0.5).astype(np.float32)

    return {s.name: drawn(s.name, s.shape, s.fan_in) for s in weight_specs(graph, WIDTH)}


class Pass(NamedTuple):
    """What a pass gave, and what it left."""

    output: Array
    run: Run


def passed(
    graph: Graph, weights: Mapping[str, Array], kind: Kind = "every", seed: int | None = None,
    tokens: Ids = TOKENS,
) -> Pass:  # fmt: skip
    """A pass on X, in training with these random numbers if a seed is given."""
    run = Run(training=seed is not None, tokens=tf.constant(tokens), seed=seed)
    block = lower(graph, WIDTH, LoweringOptions(BATCH, LENGTH, kind=kind, dynamic=True))
    output = block.function(tf.constant(X), [tf.constant(w) for w in weights.values()], run)
    return Pass(np.asarray(output), run)


def close(ours: Array, theirs: Array) -> bool:
    """Whether they differ by at most 1e-5 of their size."""
    return bool(np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max())
