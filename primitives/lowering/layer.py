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
from primitives.lowering.dispatch import LoweringOptions, Recorded
from primitives.lowering.emit import Body, emit
from primitives.lowering.expression import Tuple
from primitives.lowering.render import source
from primitives.lowering.stepwise import Kept, Step, emit_step
from primitives.lowering.weights import WeightSpec

Array = npt.NDArray[np.float32]
Block = Callable[..., Any]
"""(x [batch, T, d_model], weights in canonical order, run: balancing.Run) -> [batch, T, d_model].
Only programs that route look at `run`."""


def function_source(body: Body, with_memory: bool = False) -> str:
    """`def block(x, weights, run)` around a body whose lines call weights by plain name. Its value
    is the block's output, or, `with_memory`, a pair of that and the remembered state."""
    names = ", ".join(spec.name for spec in body.weights)
    unpack = [f"({names},) = weights"] if names else []
    value = f"{body.result}, {body.memory}" if with_memory else body.result
    lines = [*unpack, *body.lines, f"return {value}"]
    return "def block(x, weights, run=None):\n" + "".join(f"    {line}\n" for line in lines)


@dataclass(frozen=True, slots=True)
class Lowered:
    """A block's function; whether it looks at `run` or leaves anything there; and the names of the
    weights of which a pass reads a few experts' rows alone."""

    function: Block
    runs: bool
    gathered: frozenset[str]


def lower(
    graph: Graph,
    d_model: int,
    options: LoweringOptions,
    record: Recorded = "loads",
    with_memory: bool = False,
) -> Lowered:
    """The block as a pure function of its input and weights, but for what it leaves in `run`:
    with what it is to `record` of its routed calls. It gives (output, remembered state)
    `with_memory`, see `lowering.memory`."""
    body = emit(graph, d_model, options=options, record=record)
    function = _compiled(function_source(body, with_memory), "block", f"<block {graph.hash}>", body)
    return Lowered(function, body.runs, body.gathered)


def block_function(graph: Graph, d_model: int, options: LoweringOptions | None = None) -> Block:
    """The block's function alone, which records no loads."""
    return lower(graph, d_model, options or LoweringOptions(), record="nothing").function


def step_source(step: Step) -> str:
    """`def step(x, weights, cache, start, run)`, which gives the block's output and a new cache."""
    names = ", ".join(spec.name for spec in step.body.weights)
    unpack = [f"({names},) = weights"] if names else []
    kept = source(Tuple(tuple(each.value for each in step.kept)))
    lines = [*unpack, *step.body.lines, f"return {step.body.result}, {kept}"]
    return "def step(x, weights, cache, start, run=None):\n" + "".join(f"    {x}\n" for x in lines)


@dataclass(frozen=True, slots=True)
class LoweredStep:
    """A block's function for a few new positions: (x [batch, N, d_model], weights, cache, how many
    positions came before, run) -> (y [batch, N, d_model], cache). `kept` says what is in a cache,
    and `code` what the function's source is."""

    function: Block
    kept: tuple[Kept, ...]
    code: str

    def empty_cache(self, batch: int, length: int, d_model: int, dtype: str) -> tuple[Any, ...]:
        """What is kept before the first of `length` positions."""
        shapes = [each.shape(batch, length, d_model) for each in self.kept]
        starts = [each.start for each in self.kept]
        return tuple(ops.full(*each, dtype) for each in zip(shapes, starts, strict=True))


def lower_step(graph: Graph, d_model: int, rotary: bool = False) -> LoweredStep:
    """The block as a pure function of a few new positions and of what was kept of earlier ones;
    ValueError where the graph has none (see `stepwise.not_stepwise`)."""
    step = emit_step(graph, d_model, rotary=rotary)
    code = step_source(step)
    return LoweredStep(_compiled(code, "step", f"<step {graph.hash}>", step.body), step.kept, code)


def _compiled(code: str, name: str, filename: str, body: Body) -> Block:
    """The function of this name that the code defines; debuggers find its lines."""
    linecache.cache[filename] = (len(code), None, code.splitlines(True), filename)
    own = {function.__name__: function for function in body.row_functions}
    namespace: dict[str, Any] = {"ops": ops, **kernels(), **own}
    exec(compile(code, filename, "exec"), namespace)
    made: Block = namespace[name]
    return made


def initial_weights(specs: Sequence[WeightSpec], rng: np.random.Generator) -> list[Array]:
    """Start values, one array a spec, drawn in order."""
    return [_initial(spec, rng) for spec in specs]


def _initial(spec: WeightSpec, rng: np.random.Generator) -> Array:
    if spec.init == "ones":
        return np.ones(spec.shape, np.float32)
    if spec.init in ("zeros", "table"):
        return np.zeros(spec.shape, np.float32)
    if spec.init == "causal":
        taps = spec.shape[-2]
        values = np.full(spec.shape, 0.5 / taps, np.float32)
        values[..., -1, :] = 0.5
        return values
    return rng.standard_normal(spec.shape, np.float32) * np.float32(spec.fan_in**-0.5)
