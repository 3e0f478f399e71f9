"""Functions on arrays that lowered programs call: `dense`, then `routing` and `runs` (how tokens
reach experts), `choices` (which ones they reached), `rows` (those that a gate leaves open), `tasks`
(what token ids say of their document), `balancing` (what keeps experts busy), `asking` (what they
ask of the trainer), `positions` (where a state stands) and `stepwise` (a few new positions after
others).

Every public function of these modules may be called by a primitive's `code`, by its plain name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

_MODULES = (
    "dense",
    "routing",
    "choices",
    "runs",
    "rows",
    "tasks",
    "balancing",
    "asking",
    "positions",
    "stepwise",
)


@cache
def kernel_modules() -> tuple[ModuleType, ...]:
    """The modules, each after those that it imports. Keras is imported with them."""
    return tuple(import_module(f"{__name__}.{name}") for name in _MODULES)


@cache
def kernels() -> dict[str, Callable[..., Any]]:
    """The public functions that the modules define, by name."""
    return {
        name: value
        for module in kernel_modules()
        for name, value in vars(module).items()
        if callable(value)
        and getattr(value, "__module__", "") == module.__name__
        and name[0] != "_"
    }
