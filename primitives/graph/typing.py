"""The types of the nodes that inlining makes, or the fault that ends it."""

from __future__ import annotations

from functools import lru_cache

from primitives.graph.canonical import Tag, tag
from primitives.graph.liveness import TRAITS
from primitives.ops.state import Inferred, Mismatch, StateType
from primitives.ops.table import infer


class TypeFault(Exception):
    """Carries a mismatch up through the calls, each of which adds the place where it stands: the
    subroutine's index and the instruction's position."""

    def __init__(self, mismatch: Mismatch) -> None:
        self.mismatch = mismatch
        self.places: list[tuple[int, int]] = []


@lru_cache(maxsize=1 << 16)
def typed(
    op: str,
    value: float,
    count: int,
    context: tuple[int, ...],
    x: StateType,
    y: StateType,
    bidirectional: bool,
) -> tuple[Inferred, Tag]:
    """The type of a primitive's result, or why it has none, and the tag of its node."""
    traits = TRAITS[op]
    size = int(value) if traits.sized else count
    made = infer(op, x, y, size, context, bidirectional)
    return made, tag(op, value, context, count, traits.commutative)


def fitting(made: Inferred) -> StateType:
    """The type; a TypeFault where there is none."""
    if isinstance(made, StateType):
        return made
    raise TypeFault(made)
