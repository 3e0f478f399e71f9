"""Which experts the tokens of a batch chose, and how many tokens each expert got."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from primitives.kernels.routing import buffer_capacity, queue, same_heads, with_heads

Tensor = Any


def expert_load(
    gates: Tensor, ids: Tensor, n: int, capacity: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """How many tokens each of n experts got in this batch, what share of entries buffers of this
    capacity factor would drop, and each expert's gates, summed by size."""
    gates, ids = same_heads(gates, ids)
    experts = ops.reshape(ops.cast(ids, "int32"), (-1,))
    used, sizes = (
        ops.segment_sum(ops.reshape(ops.cast(each, "float32"), (-1,)), experts, n)
        for each in (gates != 0, ops.abs(gates))
    )
    if capacity is None:
        return used, ops.zeros(()), sizes
    slots = buffer_capacity(ops.shape(ids)[-2], ids.shape[-1], n, capacity)
    return used, ops.mean(ops.cast(queue(ids, n)[0] >= slots, "float32")), sizes


def gate_load(gates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`expert_load` for gates over all experts, [batch, *heads, T, n], where nothing is dropped."""
    used, sizes = (
        ops.sum(ops.reshape(ops.cast(each, "float32"), (-1, gates.shape[-1])), axis=0)
        for each in (gates != 0, ops.abs(gates))
    )
    return used, ops.zeros(()), sizes


def entry_choices(
    gates: Tensor, ids: Tensor, n: int, heads: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """The experts that each token went to [batch, T, entries], counted over all heads, -1 where
    the gate is 0; and the gates."""
    gates, ids = same_heads(gates, ids)
    gates, ids = with_heads(gates, heads), with_heads(ops.cast(ids, "int32"), heads)
    if heads:
        ids = ids + ops.reshape(ops.arange(math.prod(heads), dtype="int32") * n, (*heads, 1, 1))
    ids = ops.where(gates != 0, ids, -1)
    return _beside(ids), _beside(gates)


def gate_choices(gates: Tensor, heads: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """`entry_choices` for gates over all experts, [batch, *heads, T, n]."""
    ids = ops.broadcast_to(ops.arange(gates.shape[-1], dtype="int32"), ops.shape(gates))
    return entry_choices(gates, ids, gates.shape[-1], heads)


def _beside(x: Tensor) -> Tensor:
    """[batch, *heads, T, k] as [batch, T, heads k]."""
    moved = ops.moveaxis(x, -2, 1)
    return ops.reshape(moved, (*ops.shape(moved)[:2], math.prod(moved.shape[2:])))
