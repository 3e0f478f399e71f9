"""The training engine on JAX: for TPUs, and wherever JAX is the faster backend.

The same program, optimiser and windows as on TensorFlow; the steps of a call run in one device
loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from primitives.graph import Graph
from primitives.layer import Array, block_function
from workers.engine import Windows
from workers.model import cross_entropy
from workers.optimizer import elementwise, make_optimizer
from workers.parameters import Packing
from workers.task import Task

CALL_STEPS = 32
"""Steps of one compiled call: its shape is fixed, so shorter calls leave places empty."""


class JaxEngine:
    """One candidate in training; see `engine.Engine`."""

    def __init__(self, graph: Graph, values: Sequence[Array], task: Task) -> None:
        self._task = task
        self._block = block_function(graph, task.model.d_model)
        shapes = tuple(value.shape for value in values)
        self._packing = Packing(shapes, elementwise(task.optimizer))
        variables = self._packing.variables(values)
        self._optimizer = make_optimizer(task.optimizer)
        self._optimizer.build(variables)
        self._state = (
            [variable.value for variable in variables],
            [variable.value for variable in self._optimizer.variables],
        )
        batch = (task.training.batch_size, task.model.sequence_length + 1)
        windows = jax.ShapeDtypeStruct((CALL_STEPS, *batch), jnp.int32)
        count = jax.ShapeDtypeStruct((), jnp.int32)
        train = jax.jit(self._many_steps, donate_argnums=0)
        self._train = train.lower(self._state, windows, count).compile()
        self._score = jax.jit(self._many_scores).lower(self._state[0], windows, count).compile()

    def train(self, windows: Windows) -> float:
        total = 0.0
        for part, count in _parts(windows):
            self._state, loss = self._train(self._state, part, count)
            total += float(loss)
        return total / len(windows)

    def score(self, windows: Windows) -> float:
        total = sum(float(self._score(self._state[0], *part)) for part in _parts(windows))
        return total / len(windows)

    def weights(self) -> list[Array]:
        return [np.asarray(tensor) for tensor in self._packing.tensors(self._state[0])]

    def _loss(self, variables: Sequence[Any], windows: Any) -> Any:
        weights = self._packing.tensors(variables)
        return cross_entropy(self._block, self._task.model.layers, weights, windows)

    def _many_steps(self, state: Any, windows: Any, count: Any) -> Any:
        def step(index: Any, carried: Any) -> Any:
            (variables, slots), total = carried
            loss, gradients = jax.value_and_grad(self._loss)(variables, windows[index])
            variables, slots = self._optimizer.stateless_apply(slots, gradients, variables)
            return (variables, slots), total + loss

        return jax.lax.fori_loop(0, count, step, (state, jnp.zeros(())))

    def _many_scores(self, variables: Any, windows: Any, count: Any) -> Any:
        def add(index: Any, total: Any) -> Any:
            return total + self._loss(variables, windows[index])

        return jax.lax.fori_loop(0, count, add, jnp.zeros(()))


def _parts(windows: Windows) -> Iterator[tuple[Array, int]]:
    """Windows in arrays of CALL_STEPS, the last one filled up, each with how many are real."""
    for start in range(0, len(windows), CALL_STEPS):
        part = windows[start : start + CALL_STEPS]
        filled = np.zeros((CALL_STEPS, *part.shape[1:]), np.int32)
        filled[: len(part)] = part
        yield filled, len(part)
