"""Python names for states and weights, each of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from primitives.kernels import kernels

GIVEN = ("x", "ops", "self", "run")
"""What a block's lines may say beside states, weights and kernels: its input, keras.ops, the layer
that is exported and the pass under way."""


class Names:
    """Hands out names; none of those that are `taken` and none twice."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)

    def new(self, wanted: str) -> str:
        """The name that is wanted, `norm.out` as norm_out, or the first that is free of norm_out_2,
        norm_out_3, ..."""
        base = _identifier(wanted)
        name, count = base, 1
        while name in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._taken.add(name)
        return name


@lru_cache(maxsize=1 << 14)
def _identifier(wanted: str) -> str:
    """An identifier that begins with one underscore at most: inside a class, Python takes a name
    with two for another one."""
    return re.sub(r"^__+", "_", re.sub(r"\W+", "_", wanted))


def state_names(weights: Iterable[str], functions: Iterable[str]) -> Names:
    """Names for a block's states, of which none may hide a weight, a function of the block's
    primitives or a kernel."""
    return Names({*GIVEN, *kernels(), *weights, *functions})
