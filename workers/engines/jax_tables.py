"""`tables` on JAX, where shapes are fixed: a step touches at most as many rows as it reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from workers.engines.tables import Touched, stepped
from workers.spec.task import OptimizerSpec


class Table(NamedTuple):
    """The weights [n, *row] of n experts, and their two moments."""

    weights: Any
    first: Any
    second: Any


class Rows:
    """A table in one pass: it gives rows, and remembers which. To each read the next of `offsets`
    is added, zeros of its shape; the gradient by the offset is that by the rows. None adds
    nothing."""

    def __init__(self, table: Any, offsets: Sequence[Any] | None = None) -> None:
        self.table, self.shape = jax.lax.stop_gradient(table), table.shape
        self._offsets: Iterator[Any] | None = None if offsets is None else iter(offsets)
        self.taken: list[Any] = []

    def rows(self, ids: Any) -> Any:
        self.taken.append(ids)
        rows = self.table.at[ids].get(mode="promise_in_bounds")
        return rows if self._offsets is None else rows + next(self._offsets)

    def read_shapes(self) -> list[tuple[int, ...]]:
        """Those of the rows that were read, in order."""
        return [(*ids.shape, *self.shape[1:]) for ids in self.taken]


def touched(size: int, taken: Sequence[Any], gradients: Sequence[Any]) -> Touched:
    """The rows of a table of `size` rows that were touched, from the ids and the gradients of every
    read. Places that are left over have gradients of 0, and rows from `size` on, which there are
    not."""
    ids = jnp.concatenate([each.reshape(-1) for each in taken])
    row = gradients[0].shape[taken[0].ndim :]
    gradient = jnp.concatenate([each.reshape(-1, *row) for each in gradients])
    most = min(len(ids), size)
    order = jnp.argsort(ids)
    ordered = ids[order]
    begins = jnp.concatenate([jnp.ones(1, bool), ordered[1:] != ordered[:-1]])
    place = jnp.cumsum(begins) - 1
    total = jax.ops.segment_sum(gradient[order], place, most, indices_are_sorted=True)
    nowhere = size + jnp.arange(most, dtype=ids.dtype)
    return nowhere.at[place].set(ordered, indices_are_sorted=True), total


def updated(table: Table, own: Touched, step: Any, spec: OptimizerSpec) -> Table:
    """The table after a step, in the memory that it has; `step` counts those before it."""
    ids, gradient = own
    weights, first, second = (each.at[ids].get(mode="clip") for each in table)
    made = stepped((weights, first, second), gradient, step, spec)
    parts = zip(table, made, strict=True)
    promises: Any = {"indices_are_sorted": True, "unique_indices": True, "mode": "drop"}
    return Table(*(part.at[ids].set(value, **promises) for part, value in parts))
