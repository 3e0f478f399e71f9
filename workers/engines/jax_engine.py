"""The training engine on JAX: for TPUs, and wherever JAX is the faster backend.

The same program, optimiser and windows as on TensorFlow; the steps of a call run in one device
loop.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from primitives.graph.build import Graph
from primitives.lowering.layer import Array
from workers.engines.engine import Loads, Windows, check_kept
from workers.engines.jax_steps import (
    Steps,
    calibration_steps,
    compile_steps,
    dump_steps,
    forgo_cache,
    load_steps,
)
from workers.engines.passes import calls, summed
from workers.spec.task import Task


class JaxEngine:
    """One candidate in training; see `engine.Engine` and `engine.Ahead`."""

    def __init__(
        self,
        graph: Graph,
        values: Sequence[Array],
        task: Task,
        seed: int,
        compiled: Steps | None = None,
    ) -> None:
        shapes = [value.shape for value in values]
        self._source = graph, shapes, task
        self._steps = compiled or compile_steps(graph, shapes, task)
        self._state = jax.device_put(self._steps.start(values, seed))
        self.loads: Loads = []

    def train(self, windows: Windows) -> float:
        total = 0.0
        for part, count in calls(windows):
            self._state, loss = self._steps.train(self._state, part, np.int32(count))
            total += loss  # a call waits for the one before it, and the host for the last
        return float(total) / len(windows)

    def score(self, windows: Windows) -> float:
        made = [
            self._steps.score(self._state, part, np.int32(count)) for part, count in calls(windows)
        ]
        loss, self.loads = summed(made, len(windows))
        return loss

    def calibrate(self, windows: Windows) -> list[Array]:
        function = calibration_steps(*self._source)
        made = function(self._state, windows.astype(np.int32), np.int32(len(windows)))
        return [np.asarray(part) for part in made]

    def weights(self) -> list[Array]:
        state, packing = self._state, self._steps.packing
        tables = [table.weights for table in state.tables]
        everything = packing.all(packing.tensors(state.variables), state.states, tables)
        return [np.asarray(each) for each in everything]

    @staticmethod
    def compile(graph: Graph, shapes: Sequence[tuple[int, ...]], task: Task) -> bytes:
        forgo_cache()
        return dump_steps(compile_steps(graph, shapes, task))

    load = staticmethod(load_steps)

    def kept(self) -> list[Array]:
        return [np.asarray(leaf) for leaf in jax.tree.leaves(self._state)]

    def restore(self, kept: Sequence[Array]) -> None:
        check_kept(self.kept(), kept)
        structure = jax.tree.structure(self._state)
        self._state = jax.device_put(jax.tree.unflatten(structure, kept))
