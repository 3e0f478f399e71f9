"""Random programs, each run once: on two sequences and on changed ones, by the interpreter, and
with its routed calls run in every way."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import tensorflow as tf
from keras import ops

from primitives import DNA, Graph, build
from primitives.graph.build import DISPATCH, Node
from primitives.kernels import kernels
from primitives.kernels.balancing import Run
from primitives.lowering.dispatch import (
    LoweringOptions,
    feature_size,
    inside_of,
    regions,
    strategies,
)
from primitives.lowering.emit import emit
from primitives.lowering.layer import block_function
from primitives.lowering.render import line
from primitives.lowering.rewrite import lowered
from primitives.ops.table import PRIMITIVES
from tests.primitives.call_sites import by_site, random_weights
from tests.reference.interpreter import Array, Ids, interpret
from tests.reference.random_programs import programs, routed_programs

PROGRAMS = {"dense": 580, "routed": 160}
KINDS = ("every", "blocks", "entries", "runs")
LENGTH, WIDTH, VOCABULARY = 6, 8, 99
CUTS = (1, 3, 5)
LOOSE = 1e-4


@dataclass(frozen=True)
class Trial:
    """One program run on two random sequences. `outputs` are theirs, `spliced[cut]` those of the
    first sequence with all after `cut` replaced, `prefix` those of both cut off, `alone` that of
    the second sequence without the first, `others` those of routed calls run in other ways,
    `reference` the interpreter's; `slack` is how far outputs may differ by rounding; `misshapen`
    says which states are not of their type's shape."""

    dna: DNA
    graph: Graph
    rotary: bool
    outputs: Array
    spliced: dict[int, Array]
    prefix: Array
    alone: Array
    others: dict[str, Array]
    reference: Array
    slack: float
    misshapen: tuple[str, ...]

    @property
    def telling(self) -> bool:
        finite = np.isfinite(self.outputs).all() and np.isfinite(self.reference).all()
        return bool(finite and self.slack < LOOSE)

    def differs(self, ours: Array, theirs: Array) -> bool:
        return not np.all(np.abs(ours - theirs) <= self.slack + 1e-9 * np.abs(theirs))


def traced(
    graph: Graph,
    x: tf.Tensor,
    weights: list[tf.Tensor],
    tokens: tf.Tensor,
    options: LoweringOptions,
) -> tuple[Array, tuple[str, ...]]:
    """The block's output, run line by line, and the states that are not of their type's shape."""
    body, nodes = emit(graph, WIDTH, options=options), lowered(graph, options.rotary)
    shapes = shapes_of(nodes, x.shape[0], options)
    values = {
        **kernels(),
        "ops": ops,
        "x": x,
        "run": Run(tokens=tokens),
    }
    values |= {spec.name: weight for spec, weight in zip(body.weights, weights, strict=True)}
    wrong = []
    for statement in body.statements:
        written, names, positions = line(statement), statement.names, statement.nodes
        exec(written, values)
        if len(positions) == 1:  # values and indices, or slots and their route
            positions *= 1 if nodes[positions[0]].op == DISPATCH else len(names)
        for name, position in zip(names, positions, strict=False):
            made, axes = tuple(values[name].shape), shapes[position]
            if len(made) != len(axes) or not all(map(set.__contains__, axes, made)):
                wrong.append(f"{written}: {made}, its type is {nodes[position].type}")
    return np.array(values[body.result]), tuple(wrong)


def shapes_of(
    nodes: tuple[Node, ...], batch: int, options: LoweringOptions
) -> list[list[set[int]]]:
    """For each state, sizes that each of its axes may have. In programs that route, a branch axis
    may have size 1 where branches do not differ; experts' tokens lie in any number of blocks."""
    around, chosen, any_size = (
        regions(nodes),
        strategies(nodes, WIDTH, options),
        set(range(1, 1 << 14)),
    )
    routing_ops = {DISPATCH, *(name for name, row in PRIMITIVES.items() if row.routing)}
    loose = not routing_ops.isdisjoint(node.op for node in nodes)
    shapes = []
    for position, node in enumerate(nodes):
        size = {feature_size(node.type, WIDTH, LENGTH)}
        axes = [{abs(n), 1} if loose else {n} for n in node.type.branches]
        region = around[position]
        while (
            region >= 0 and chosen[region].kind != "runs" and around[inside_of(nodes, region)] >= 0
        ):
            region = around[inside_of(nodes, region)]
        if region < 0 or chosen[region].kind == "every":
            shapes.append([{batch}, *axes, {LENGTH}, size])
        else:
            outer = len(nodes[region].context)
            rows = any_size if chosen[region].kind == "entries" else {1}
            shapes.append([rows, *[{1}] * (outer - 1), any_size, *axes[outer:], any_size, size])
    return shapes


def attempt(dna: DNA, seed: int) -> Trial:
    graph = build(dna)
    assert isinstance(graph, Graph)
    rng = np.random.default_rng(seed)
    weights = random_weights(graph, WIDTH, rng)
    tensors = [tf.constant(weight) for weight in weights]
    x = rng.standard_normal((2, LENGTH, WIDTH))
    nudged = x * (1 + 1e-13 * rng.standard_normal(x.shape))
    spliced = np.repeat(x[:1], len(CUTS), axis=0)
    tokens = rng.integers(0, VOCABULARY, (2, LENGTH)) + 2**17 * rng.integers(0, 9, (2, LENGTH))
    later = np.repeat(tokens[:1], len(CUTS), axis=0)
    for row, cut in enumerate(CUTS):
        scale = 1 if row % 2 else 20
        spliced[row, cut:] = scale * rng.standard_normal((LENGTH - cut, WIDTH))
        later[row, cut:] = rng.integers(0, VOCABULARY, LENGTH - cut)
    batch = tf.constant(np.concatenate([x, nudged, spliced]))
    ids = np.concatenate([tokens, tokens, later])
    first, *rest = KINDS[seed % 4 :] + KINDS[: seed % 4]
    rotary = seed // 4 % 3 == 2
    options = LoweringOptions(7, LENGTH, kind=first, dynamic=True, rotary=rotary)
    outputs, misshapen = traced(graph, batch, tensors, ids, options)
    length = 1 + seed % (LENGTH - 1)

    def run(kind: str, x: Array, tokens: Ids) -> Array:
        options = LoweringOptions(*x.shape[:2], kind=kind, dynamic=True, rotary=rotary)
        block = block_function(graph, WIDTH, options)
        return np.array(block(tf.constant(x), tensors, Run(tokens=tokens)))

    with np.errstate(all="ignore"):
        slack = 1e-9 + 10 * np.abs(outputs[2:4] - outputs[:2]).max()
    return Trial(
        dna=dna,
        graph=graph,
        rotary=rotary,
        outputs=outputs[:2],
        spliced={cut: outputs[4 + row] for row, cut in enumerate(CUTS)},
        prefix=run(first, x[:, :length], tokens[:, :length]),
        alone=run(first, x[1:], tokens[1:]),
        others={kind: run(kind, x, tokens) for kind in rest} if routes(graph) else {},
        reference=interpret(dna, x, by_site(dna, weights), tokens, rotary=rotary),
        slack=float(slack),
        misshapen=misshapen,
    )


def routes(graph: Graph) -> bool:
    return any(node.op == DISPATCH for node in graph.nodes)


@cache
def attempts(family: str) -> list[Trial]:
    drawn = {"dense": programs, "routed": routed_programs}[family](PROGRAMS[family])
    return [attempt(dna, seed) for seed, dna in enumerate(drawn)]
