"""Rows of a sequence that a gate leaves open, packed: [batch, C, feature] of [batch, T, feature],
in the sequence's order, so that what the gate multiplies later is computed for them alone.

C is that of the sequence with the most open rows, or a fixed capacity; rows that a sequence does
not need are zeros.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops

from primitives.kernels.routing import move_rows, share_of

Tensor = Any


class Rows(NamedTuple):
    """Where rows lie. Places count from 1, and 0 is nowhere: `there` [batch C] is the row of all
    sequences in each place, `back` [batch T, 1] the place of each row; `positions` [batch, C] are
    the rows' positions in their sequences, 0 where there is none."""

    there: Tensor
    back: Tensor
    positions: Tensor


def open_rows(gate: Tensor, share: float, dynamic: bool) -> Rows:
    """The rows where a gate [batch, T, 1] is not 0, the first ones of each sequence up to a share
    of it. Where sizes may be `dynamic`, C is what the fullest sequence needs, else that share."""
    is_open = gate[..., 0] != 0
    batch, length = ops.shape(is_open)[0], ops.shape(is_open)[1]
    rank = ops.cumsum(ops.cast(is_open, "int32"), axis=1)
    count = share_of(length, share)
    if dynamic:
        count = ops.maximum(ops.minimum(ops.max(rank), count), 1)
    first = ops.arange(batch, dtype="int32")[:, None] * count
    place = ops.where(ops.logical_and(is_open, rank <= count), first + rank, 0)
    back = ops.reshape(place, (-1, 1))
    row = ops.arange(1, batch * length + 1, dtype="int32")
    there = ops.scatter(back, row, (batch * count + 1,))[1:]
    positions = ops.reshape(ops.maximum(there - 1, 0) % length, (batch, count))
    return Rows(there, back, positions)


def pack_rows(x: Tensor, rows: Rows) -> Tensor:
    """x [batch, T, n] at the open rows: [batch, C, n]."""
    made = move_rows(ops.reshape(x, (-1, x.shape[-1])), rows.there, rows.back)
    return ops.reshape(made, (*ops.shape(rows.positions), x.shape[-1]))


def unpack_rows(y: Tensor, rows: Rows, x: Tensor) -> Tensor:
    """y [batch, C, n] at its rows of [batch, T, n], and 0 elsewhere; x is any array [batch, T,
    m]."""
    made = move_rows(
        ops.reshape(y, (-1, y.shape[-1])), ops.reshape(rows.back, (-1,)), rows.there[:, None]
    )
    return ops.reshape(made, (*ops.shape(x)[:2], y.shape[-1]))
