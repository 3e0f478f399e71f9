"""The training engine on JAX: for TPUs, and wherever JAX is the faster backend.

The same program, optimiser and windows as on TensorFlow; the steps of a call run in one device
loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from primitives.graph.build import Graph
from primitives.lowering.layer import Array
from workers.engines.engine import Loads, Windows
from workers.engines.optimizer import make_optimizer
from workers.engines.passes import CALL_STEPS, Passes, calls, experts_of, packing_of, summed
from workers.model.model import model_layers
from workers.spec.task import Task


class JaxEngine:
    """One candidate in training; see `engine.Engine`."""

    def __init__(self, graph: Graph, values: Sequence[Array], task: Task, seed: int) -> None:
        layers = model_layers(graph, task)
        self._passes = Passes(layers, task, seed, experts_of(graph, task), "uint32")
        self._packing = packing_of(layers, task, values, compiled=True)
        variables = self._packing.variables(values)
        self._optimizer = make_optimizer(task.optimizer)
        self._optimizer.build(variables)
        self._state = (
            [variable.value for variable in variables],
            [variable.value for variable in self._optimizer.variables],
            [jnp.asarray(state) for state in self._packing.of("state", values)],
            jnp.zeros((), jnp.uint32),
        )
        self.loads: Loads = []
        shape: Any = jax.ShapeDtypeStruct
        windows = shape((CALL_STEPS, *self._passes.windows), jnp.int32)
        count = shape((), jnp.int32)
        train = jax.jit(self._many_steps, donate_argnums=0)
        self._train = train.lower(self._state, windows, count).compile()
        self._score = jax.jit(self._many_scores).lower(self._state, windows, count).compile()

    def train(self, windows: Windows) -> float:
        total = 0.0
        for part, count in calls(windows):
            self._state, loss = self._train(self._state, part, count)
            total += loss  # a call waits for the one before it, and the host for the last
        return float(total) / len(windows)

    def score(self, windows: Windows) -> float:
        made = [self._score(self._state, *call) for call in calls(windows)]
        loss, self.loads = summed(made, len(windows))
        return loss

    def weights(self) -> list[Array]:
        return [np.asarray(tensor) for tensor in self._all(self._state[0], self._state[2])]

    def _all(self, variables: Sequence[Any], states: Sequence[Any]) -> list[Any]:
        return self._packing.all(self._packing.tensors(variables), states)

    def _loss(self, variables: Sequence[Any], states: Any, windows: Any, step: Any) -> Any:
        weights = self._all(variables, states)
        total, loss, updates = self._passes.train(weights, windows, step)
        places = self._packing.places("state")
        kept = [updates.get(place, state) for place, state in zip(places, states, strict=True)]
        return total, (loss, kept)

    def _many_steps(self, state: Any, windows: Any, count: Any) -> Any:
        gradient = jax.value_and_grad(self._loss, has_aux=True)

        def step(index: Any, carried: Any) -> Any:
            (variables, slots, states, number), total = carried
            (_, (loss, states)), gradients = gradient(variables, states, windows[index], number)
            variables, slots = self._optimizer.stateless_apply(slots, gradients, variables)
            return (variables, slots, states, number + 1), total + loss

        return jax.lax.fori_loop(0, count, step, (state, jnp.zeros(())))

    def _many_scores(self, state: Any, windows: Any, count: Any) -> Any:
        weights = self._all(state[0], state[2])

        def add(index: Any, totals: Any) -> Any:
            parts = self._passes.score(weights, windows[index])
            return [total + part for total, part in zip(totals, parts, strict=True)]

        start = [jnp.zeros(shape) for shape in self._passes.score_shapes]
        return jax.lax.fori_loop(0, count, add, start)
