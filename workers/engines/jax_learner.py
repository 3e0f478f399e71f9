"""Gradient training of any pure function on JAX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import keras
import numpy as np

from primitives.lowering.layer import Array
from workers.engines.learner import Function, Group


class JaxLearner:
    """See `learner.Learner`. The state is a tuple: the values of each group, the arrays of each
    group's optimiser, and the states."""

    integer = "uint32"

    def __init__(
        self,
        function: Function,
        groups: Sequence[Group],
        states: Sequence[Array] = (),
        fixed: Sequence[Array] = (),
    ) -> None:
        self._function, self._groups = function, groups
        for group in groups:
            group.optimizer.build([keras.Variable(value) for value in group.values])
        slots = [[np.asarray(v) for v in group.optimizer.variables] for group in groups]
        values = [list(group.values) for group in groups]
        self._state = jax.device_put((values, slots, list(states)))
        self._fixed = jax.device_put(list(fixed))
        self._compiled: Any = jax.jit(self._step, donate_argnums=0)

    def step(self, *arguments: Any) -> Sequence[Any]:
        self._state, made = self._compiled(self._state, self._fixed, *arguments)
        found: Sequence[Any] = made
        return found

    def _step(self, state: Any, fixed: Any, *arguments: Any) -> Any:
        values, slots, states = state

        def total(values: Any) -> Any:
            return self._function(values, states, fixed, *arguments)

        (_, (made, states)), found = jax.value_and_grad(total, has_aux=True)(values)
        updated = []
        for group, own, kept, gradients in zip(self._groups, values, slots, found, strict=True):
            turned = [-each for each in gradients] if group.ascends else gradients
            after, kept = group.optimizer.stateless_apply(kept, turned, own)
            if group.within is not None:
                after = [group.within(each) for each in after]
            updated.append((list(after), list(kept)))
        new, slots = [own for own, _ in updated], [kept for _, kept in updated]
        return (new, slots, list(states)), list(made)

    def values(self) -> list[list[Array]]:
        return [[np.asarray(value) for value in own] for own in self._state[0]]

    def states(self) -> list[Array]:
        return [np.asarray(each) for each in self._state[2]]

    def kept(self) -> list[Array]:
        return [np.asarray(each) for each in jax.tree.leaves(self._state)]

    def restore(self, kept: Sequence[Array]) -> None:
        structure = jax.tree.structure(self._state)
        self._state = jax.device_put(jax.tree.unflatten(structure, list(kept)))

    @staticmethod
    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        made: Callable[..., Any] = jax.jit(function)
        return made
