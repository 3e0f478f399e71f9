"""Gradient training of any pure function on TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from primitives.lowering.layer import Array
from workers.engines.learner import Function, Group


class TensorFlowLearner:
    """See `learner.Learner`."""

    integer = "int32"

    def __init__(
        self,
        function: Function,
        groups: Sequence[Group],
        states: Sequence[Array] = (),
        fixed: Sequence[Array] = (),
    ) -> None:
        self._function, self._groups = function, groups
        self._variables = [[keras.Variable(value) for value in group.values] for group in groups]
        self._states = [tf.Variable(value) for value in states]
        self._fixed = [tf.constant(value) for value in fixed]
        for group, own in zip(groups, self._variables, strict=True):
            group.optimizer.build(own)
        self._compiled = self.compiled(self._step)

    def step(self, *arguments: Any) -> Sequence[Any]:
        made: Sequence[Any] = self._compiled(*(tf.convert_to_tensor(each) for each in arguments))
        return made

    def _step(self, *arguments: Any) -> Any:
        values = [[tf.convert_to_tensor(v.value) for v in own] for own in self._variables]
        states = [tf.convert_to_tensor(each) for each in self._states]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            total, (made, new) = self._function(values, states, self._fixed, *arguments)
        found = tape.gradient(total, values, unconnected_gradients="zero")
        for group, own, gradients in zip(self._groups, self._variables, found, strict=True):
            sign = -1.0 if group.ascends else 1.0
            group.optimizer.apply([sign * tf.convert_to_tensor(each) for each in gradients], own)
            if group.within is not None:
                for variable in own:
                    variable.assign(group.within(variable.value))
        for state, value in zip(self._states, new, strict=True):
            state.assign(value)
        return list(made)

    def values(self) -> list[list[Array]]:
        return [[np.asarray(variable) for variable in own] for own in self._variables]

    def states(self) -> list[Array]:
        return [state.numpy() for state in self._states]

    def kept(self) -> list[Array]:
        return [np.asarray(each) for each in self._everything()]

    def restore(self, kept: Sequence[Array]) -> None:
        for each, value in zip(self._everything(), kept, strict=True):
            each.assign(value)

    def _everything(self) -> list[Any]:
        own = [variable for group in self._variables for variable in group]
        slots = [variable for group in self._groups for variable in group.optimizer.variables]
        return [*own, *slots, *self._states]

    @staticmethod
    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        made: Callable[..., Any] = tf.function(function, autograph=False, reduce_retracing=True)
        return made
