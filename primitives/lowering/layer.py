"""A graph as a function of arrays, made from the source that `emit` writes.

Start values come from NumPy, so that one seed gives the same weights on every backend.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops

from primitives.graph.build import Graph
from primitives.kernels import kernels
from primitives.lowering.dispatch import LoweringOptions
from primitives.lowering.emit import Body, emit
from primitives.lowering.weights import WeightSpec

Array = npt.NDArray[np.float32]
Block = Callable[..., Any]
"""(x [batch, T, d_model], weights in canonical order, run: balancing.Run) -> [batch, T, d_model].
Only programs that route look at `run`."""


def function_source(body: Body) -> str:
    """`def block(x, weights, run)` around a body whose lines call weights by plain name."""
    names = ", ".join(spec.name for spec in body.weights)
    unpack = [f"({names},) = weights"] if names else []
    lines = [*unpack, *body.lines, f"return {body.result}"]
    return "def block(x, weights, run=None):\n" + "".join(f"    {line}\n" for line in lines)


@dataclass(frozen=True, slots=True)
class Lowered:
    """A block's function; whether it looks at `run` or leaves anything there; and the names of the
    weights of which a pass reads a few experts' rows alone."""

    function: Block
    runs: bool
    gathered: frozenset[str]


def lower(
    graph: Graph, d_model: int, options: LoweringOptions, record_loads: bool = True
) -> Lowered:
    """The block as a pure function of its input and weights, but for what it leaves in `run`:
    with the loads of its experts, if `record_loads`."""
    body = emit(graph, d_model, options=options, record_loads=record_loads)
    source = function_source(body)
    filename = f"<block {graph.hash}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    own = {function.__name__: function for function in body.row_functions}
    namespace: dict[str, Any] = {"ops": ops, **kernels(), **own}
    exec(compile(source, filename, "exec"), namespace)
    return Lowered(namespace["block"], body.runs, body.gathered)


def block_function(graph: Graph, d_model: int, options: LoweringOptions | None = None) -> Block:
    """The block's function alone, which records no loads."""
    return lower(graph, d_model, options or LoweringOptions(), record_loads=False).function


def initial_weights(specs: Sequence[WeightSpec], rng: np.random.Generator) -> list[Array]:
    """Start values, one array a spec, drawn in order."""
    return [_initial(spec, rng) for spec in specs]


def _initial(spec: WeightSpec, rng: np.random.Generator) -> Array:
    if spec.init == "ones":
        return np.ones(spec.shape, np.float32)
    if spec.init == "zeros":
        return np.zeros(spec.shape, np.float32)
    if spec.init == "causal":
        taps = spec.shape[-2]
        values = np.full(spec.shape, 0.5 / taps, np.float32)
        values[..., -1, :] = 0.5
        return values
    return rng.standard_normal(spec.shape, np.float32) * np.float32(spec.fan_in**-0.5)
