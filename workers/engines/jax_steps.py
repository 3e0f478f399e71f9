"""A candidate's compiled steps on JAX. One process compiles them, another runs them: XLA compiles
for shapes alone, so no weights are needed, and what it has made can be sent as bytes.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

from primitives.graph.build import Graph
from primitives.lowering.layer import Array
from workers.engines.calibration import SHAPES
from workers.engines.jax_tables import Rows, Table, touched, updated
from workers.engines.optimizer import make_optimizer
from workers.engines.passes import CALL_STEPS, Passes, experts_of, packing_of
from workers.engines.tables import clipped
from workers.model.ends import embedding_and_head
from workers.model.model import model_layers
from workers.model.parameters import Packing
from workers.spec.task import Task


@dataclass(frozen=True, slots=True)
class Slot:
    """One of the optimiser's own arrays at the start: `fill`, spread over `shape`."""

    shape: tuple[int, ...]
    fill: Array

    def array(self) -> Array:
        return np.broadcast_to(self.fill, self.shape)


class State(NamedTuple):
    """What a step changes: variables, the optimiser's arrays, states, tables, the number of steps;
    and the run's random seed."""

    variables: list[Any]
    slots: list[Any]
    states: list[Any]
    tables: list[Table]
    number: Any
    seed: Any


@dataclass(frozen=True, slots=True)
class Steps:
    """What an engine runs: two compiled functions, and what their arguments are made of.

    Attributes:
        packing: how the model's weights lie in variables.
        slots: the optimiser's arrays at the start.
        train: (state, windows [CALL_STEPS, batch, length], count) -> (state, sum of losses) of
            `count` steps. It takes the state's memory for its result.
        score: (state, windows, count) -> sums, see `passes.Passes.score`.
    """

    packing: Packing
    slots: tuple[Slot, ...]
    train: Callable[..., Any]
    score: Callable[..., Any]

    def start(self, values: Sequence[Array], seed: int) -> State:
        """The state before the first step, in host memory."""
        return State(
            self.packing.of("weight", values),
            [slot.array() for slot in self.slots],
            self.packing.of("state", values),
            [_table(value) for value in self.packing.of("table", values)],
            np.zeros((), np.uint32),
            np.asarray(seed & 0x7FFFFFFF, np.uint32),
        )


def compile_steps(graph: Graph, shapes: Sequence[tuple[int, ...]], task: Task) -> Steps:
    """Traces and compiles a program's steps for this process' device. `shapes` are those of the
    model's weights, `task` is a settled one."""
    source = _Source(graph, shapes, task)
    made = Steps(source.packing, source.slots, source.many_steps, source.many_scores)
    shape: Any = jax.ShapeDtypeStruct
    values = [np.broadcast_to(np.float32(0), each) for each in shapes]
    state = jax.tree.map(lambda leaf: shape(leaf.shape, leaf.dtype), made.start(values, 0))
    windows = shape((CALL_STEPS, *source.passes.windows), jnp.int32)
    count = shape((), jnp.int32)
    train = jax.jit(source.many_steps, donate_argnums=0).lower(state, windows, count)
    score = jax.jit(source.many_scores).lower(state, windows, count)
    return Steps(source.packing, source.slots, train.compile(), score.compile())


def calibration_steps(
    graph: Graph, shapes: Sequence[tuple[int, ...]], task: Task
) -> Callable[..., Any]:
    """(state, windows [batches, batch, length], count) -> sums, see `calibration.Sums`. Few runs
    want it, so it is compiled when it is called."""
    made: Callable[..., Any] = jax.jit(_Source(graph, shapes, task).many_calibrations)
    return made


def forgo_cache() -> None:
    """Has this process compile everything itself from now on. What JAX's cache on disk gives runs,
    but lacks functions once it has been written and read again (JAX 0.10.2, on a CPU)."""
    config: Any = jax.config
    if config.jax_enable_compilation_cache:
        config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()


def dump_steps(steps: Steps) -> bytes:
    """The steps as bytes, for a process with the same kind of device and the same versions."""
    serialize: Any = serialize_executable.serialize
    functions = [serialize(each) for each in (steps.train, steps.score)]
    return pickle.dumps((steps.packing, steps.slots, functions))


def load_steps(data: bytes) -> Steps:
    """And back, on this process' first device."""
    packing, slots, functions = pickle.loads(data)
    load: Any = serialize_executable.deserialize_and_load
    devices = jax.local_devices()[:1]
    train, score = (load(*function, execution_devices=devices) for function in functions)
    return Steps(packing, slots, train, score)


class _Source:
    """The functions that are compiled, and what tracing them needs."""

    def __init__(self, graph: Graph, shapes: Sequence[tuple[int, ...]], task: Task) -> None:
        layers = model_layers(graph, task)
        values = [np.broadcast_to(np.float32(0), shape) for shape in shapes]
        outer = embedding_and_head(task.model)
        self.passes = Passes(layers, task, experts_of(graph, task), "uint32", outer)
        self.packing = packing_of(layers, task, values, compiled=True, lazy=True)
        self._spec = task.optimizer
        tables = self.packing.places("table")
        self._optimizer = make_optimizer(task.optimizer, clipped=not tables)
        self._offsets = self._reads(shapes) if tables else []
        # The device belongs to whoever trains: the optimiser's arrays are looked at on the host.
        with jax.default_device(_host()):
            self._optimizer.build(self.packing.variables(values))
            self.slots = tuple(_slot(each.value) for each in self._optimizer.variables)

    def many_steps(self, state: Any, windows: Any, count: Any) -> Any:
        def step(index: Any, carried: Any) -> Any:
            before, total = carried
            after, loss = self._step(before, windows[index])
            return after, total + loss

        return jax.lax.fori_loop(0, count, step, (state, jnp.zeros(())))

    def _step(self, state: State, windows: Any) -> tuple[State, Any]:
        """One step; the mean token loss."""
        zeros = [[jnp.zeros(shape) for shape in shapes] for shapes in self._offsets]
        gradient = jax.value_and_grad(self._loss, argnums=(0, 1), has_aux=True)
        (_, (loss, states, taken)), (gradients, found) = gradient(
            state.variables, zeros, state, windows
        )
        tables = list(state.tables)
        if tables:
            sizes = [len(table.weights) for table in tables]
            own = list(map(touched, sizes, taken, found))
            gradients, own = clipped(self._spec.clip_norm, gradients, own)
            pairs = zip(tables, own, strict=True)
            tables = [updated(*pair, state.number, self._spec) for pair in pairs]
        variables, slots = self._optimizer.stateless_apply(state.slots, gradients, state.variables)
        return State(variables, slots, states, tables, state.number + 1, state.seed), loss

    def many_scores(self, state: Any, windows: Any, count: Any) -> Any:
        return self._sums(self.passes.score, self.passes.score_shapes, state, windows, count)

    def many_calibrations(self, state: Any, windows: Any, count: Any) -> Any:
        return self._sums(self.passes.calibrate, SHAPES, state, windows, count)

    def _sums(
        self, function: Callable[..., Any], shapes: Sequence[tuple[int, ...]], state: Any,
        windows: Any, count: Any,
    ) -> Any:  # fmt: skip
        """Of what the function gives for the first `count` windows."""
        tables = [table.weights for table in state.tables]
        weights = self._all(state.variables, state.states, tables)

        def add(index: Any, totals: Any) -> Any:
            parts = function(weights, windows[index])
            return [total + part for total, part in zip(totals, parts, strict=True)]

        start = [jnp.zeros(shape) for shape in shapes]
        return jax.lax.fori_loop(0, count, add, start)

    def _loss(
        self, variables: Sequence[Any], offsets: Sequence[Any], state: State, windows: Any
    ) -> Any:
        """What the gradient is of, and beside it the mean token loss, new states, and for each
        table the ids of every read."""
        each = zip(state.tables, offsets, strict=True)
        tables = [Rows(table.weights, own) for table, own in each]
        everything = self._all(variables, state.states, tables)
        total, loss, updates = self.passes.train(everything, windows, state.number, state.seed)
        places = self.packing.places("state")
        pairs = zip(places, state.states, strict=True)
        kept = [updates.get(place, before) for place, before in pairs]
        return total, (loss, kept, [table.taken for table in tables])

    def _all(
        self, variables: Sequence[Any], states: Sequence[Any], tables: Sequence[Any]
    ) -> list[Any]:
        return self.packing.all(self.packing.tensors(variables), states, tables)

    def _reads(self, shapes: Sequence[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
        """The shapes of what a step reads of each table, in order."""
        found: list[list[tuple[int, ...]]] = []

        def read(weights: Any, windows: Any, number: Any) -> Any:
            tables = [Rows(table) for table in self.packing.of("table", weights)]
            variables, states = (self.packing.of(kind, weights) for kind in ("weight", "state"))
            everything = self._all(variables, states, tables)
            self.passes.train(everything, windows, number, number)
            found.extend(table.read_shapes() for table in tables)

        shape: Any = jax.ShapeDtypeStruct
        weights = [shape(each, jnp.float32) for each in shapes]
        windows = shape(self.passes.windows, jnp.int32)
        jax.eval_shape(read, weights, windows, shape((), jnp.uint32))
        return found


def _table(value: Array) -> Table:
    """A table with moments of 0."""
    return Table(value, *(np.broadcast_to(np.float32(0), value.shape) for _ in range(2)))


def _host() -> Any:
    """The CPU as a device; the first of what there is where JAX was told to do without it."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return jax.local_devices()[0]


def _slot(value: Any) -> Slot:
    array = np.asarray(value)
    first = array.reshape(-1)[:1]
    same = array.size > 0 and bool((array == first).all())
    return Slot(array.shape, first[0].copy() if same else array)
