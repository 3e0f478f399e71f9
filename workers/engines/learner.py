"""Gradient training of any pure function: what pruning trains with, on each backend.

An `engine.Engine` trains candidates, as many steps in a call as pay. A learner takes one step at a
time, of whatever function it is given, and its whole state can be kept and put back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import keras

from primitives.lowering.layer import Array
from workers.machine.backends import BACKENDS, use_backend


class Group(NamedTuple):
    """Values that one optimiser updates; where it `ascends`, so that the function grows. `within`
    brings an updated value back to where values may lie."""

    values: Sequence[Array]
    optimizer: keras.optimizers.Optimizer
    ascends: bool = False
    within: Callable[[Any], Any] | None = None


Values = Sequence[Sequence[Any]]
"""Tensors of each group."""

Function = Callable[..., tuple[Any, tuple[Sequence[Any], Sequence[Any]]]]
"""(values of each group, states, fixed, *arguments) -> (what the gradient is of, (what a step
gives, new states)). Pure, in keras.ops."""


class Learner(Protocol):
    """One training under way; its class is called as Learner(function, groups, states, fixed).

    `states` are what the function gives anew at each step, `fixed` what nothing changes, such as
    the weights of a teacher: both lie on the device. Equal arguments give equal numbers on one
    machine.
    """

    integer: str
    """The type of random seeds on the backend."""

    def step(self, *arguments: Any) -> Sequence[Any]:
        """One step of each optimiser; gives what the function gives, as tensors, which may not be
        there yet. Arguments keep their shapes and types from step to step."""

    def values(self) -> list[list[Array]]:
        """The values of each group as they stand."""

    def states(self) -> list[Array]:
        """The states as they stand."""

    def kept(self) -> list[Array]:
        """All that later steps depend on: values, states, and the optimisers' own arrays."""

    def restore(self, kept: Sequence[Array]) -> None:
        """Goes on from what another learner of the same function, groups and states has kept."""

    @staticmethod
    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        """The function as the backend runs it fast."""


def learner_of(backend: str) -> Any:
    """The class of a backend's `Learner`. A ValueError where the backend has none, RuntimeError
    where this process runs Keras on another one."""
    if not BACKENDS[backend].learner:
        able = ", ".join(name for name in BACKENDS if BACKENDS[name].learner)
        raise ValueError(f"backend {backend} cannot train pruned models; there are: {able}")
    return use_backend(backend).load_learner()
