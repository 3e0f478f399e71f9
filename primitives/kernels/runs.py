"""Tokens in runs: the slots of one expert, in token order, follow those of the expert before it,
and there are just as many as tokens were sent. Nothing is padded or computed for nothing.

How long a run is follows from the gates, so this is for backends whose sizes may follow from
values: TensorFlow's plain graphs, not XLA. Slots are [1, *ones, slots, 1, d], one block a slot (see
`routing`). A token's entries are its k choices, or those of all n experts whose gates are not 0.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

from keras import ops

from primitives.kernels.routing import buffer_capacity, first_open, with_heads

Tensor = Any


class Runs(NamedTuple):
    """Where the tokens of a routed call are. Experts are counted over all heads, rows over batch,
    heads and T; a row has m possible entries.

    Attributes:
        owner: the expert of each slot [slots], in ascending order.
        ends: the slot after the last one of each expert [experts].
        entries: the entry in each slot [slots], counted over all rows.
        order: the slot of each entry [entries], those of a row side by side.
        full: whether each row has all m entries.
        m: entries of a row.
    """

    owner: Tensor
    ends: Tensor
    entries: Tensor
    order: Tensor
    full: bool
    m: int


def to_runs(
    x: Tensor,
    ids: Tensor,
    n: int,
    heads: tuple[int, ...],
    factor: float | None = None,
    outer: Runs | None = None,
) -> tuple[Tensor, Runs]:
    """Tokens x [batch, *heads, T, d] in the runs of their experts ids [batch, *heads, T, k]: slots
    and their route. With a `factor`, an expert takes no more tokens of a sequence than a buffer of
    that capacity factor has places. Inside another routed call tokens lie in the runs of
    `outer`."""
    x, ids = _in_heads(x, heads, outer), _in_heads(ids, heads, outer)
    expert = ops.reshape(ops.cast(ids, "int32") + _first_experts(n, heads, outer, ids), (-1,))
    count, (length, k) = n * _size(heads), (ops.shape(ids)[-2], ids.shape[-1])
    if factor is None:
        route = _route(expert, None, count, k)
    else:
        capacity = buffer_capacity(length, k, n, factor)
        route = _capped_route(expert, length * k, capacity, count, k)
    return _slots(x, route, len(heads)), route


def to_open_runs(
    x: Tensor,
    gates: Tensor,
    n: int,
    heads: tuple[int, ...],
    share: float = 1.0,
    every: bool = False,
    outer: Runs | None = None,
) -> tuple[Tensor, Runs]:
    """`to_runs` for gates over all n experts, of which those that are not 0 choose, the first of a
    sequence up to a share of its tokens for each expert; or all of them where `every` is set."""
    x, gates = _in_heads(x, heads, outer), _in_heads(gates, heads, outer)
    is_open = gates != 0 if share == 1 else first_open(gates, share)
    is_open = ops.ones_like(gates, "bool") if every else is_open
    experts = ops.arange(n, dtype="int32") + _first_experts(n, heads, outer, gates)
    experts = ops.reshape(ops.broadcast_to(experts, ops.shape(gates)), (-1,))
    route = _route(experts, ops.reshape(is_open, (-1,)), n * _size(heads), n)
    return _slots(x, route, len(heads)), route


def project_runs(x: Tensor, weight: tuple[Tensor, Runs, int]) -> Tensor:
    """x [1, *ones, slots, *branches or ones, 1, d] times a kernel [*heads, n, *branches, d, m], one
    product of matrices for each expert and branch. The weight is that kernel, the tokens' route and
    how many axes of the kernel count experts."""
    kernel, route, depth = weight
    branches, (d, m) = tuple(kernel.shape[depth:-2]), kernel.shape[-2:]
    count, given = math.prod(branches), math.prod(x.shape[depth + 1 : -2])
    kernel = ops.reshape(kernel, (-1, count, d, m))
    if given == 1:  # branches read the same: their kernels side by side
        wide = ops.reshape(ops.swapaxes(kernel, 1, 2), (-1, d, count * m))
        made = _product(ops.reshape(x, (-1, d)), wide, route)
    else:
        rows = ops.reshape(x, (-1, count, d))
        parts = [_product(rows[:, i], kernel[:, i], route) for i in range(count)]
        made = ops.concatenate(parts, axis=-1)
    return ops.reshape(made, (*(1,) * depth, -1, *branches, 1, m))


def collect_runs(
    y: Tensor, gates: Tensor, route: Runs, heads: tuple[int, ...], outer: Runs | None = None
) -> Tensor:
    """Results in slots, summed by gates [batch, *heads, T, m]: [batch, *heads, T, d]."""
    gates = _in_heads(gates, heads, outer)
    shape, d = (*ops.shape(gates)[:-1], y.shape[-1]), y.shape[-1]
    rows = ops.reshape(y, (-1, d))
    if route.full:
        taken = ops.reshape(_permuted(rows, route.order, route.entries), (-1, route.m, d))
        # Faster than a product of matrices for each row, and so in the gradient.
        return ops.reshape(ops.sum(taken * ops.reshape(gates, (-1, route.m, 1)), axis=1), shape)
    weights = ops.take(ops.reshape(gates, (-1,)), route.entries)
    return ops.reshape(_summed(rows * weights[:, None], route, ops.size(gates) // route.m), shape)


def _in_heads(x: Tensor, heads: tuple[int, ...], outer: Runs | None) -> Tensor:
    """x with all branch axes. Inside another call an axis counts that one's slots."""
    if outer is None:
        return with_heads(x, tuple(abs(size) for size in heads))
    depth = _outer_depth(heads)
    sizes = (*(1,) * (depth - 1), ops.shape(x)[depth], *heads[depth:])
    return with_heads(x, sizes)


def _outer_depth(heads: tuple[int, ...]) -> int:
    """How many of the axes around a call count experts of another call, or heads around that."""
    return max(place + 1 for place, size in enumerate(heads) if size < 0)


def _first_experts(n: int, heads: tuple[int, ...], outer: Runs | None, x: Tensor) -> Any:
    """What is added to the experts of x [batch, *heads, T, m] to count them over all heads and all
    experts around."""
    inner = heads if outer is None else heads[_outer_depth(heads) :]
    count = _size(inner)
    head = ops.reshape(ops.arange(count, dtype="int32"), (*map(abs, inner), 1, 1))
    if outer is None:
        return head * n
    owner = ops.reshape(outer.owner, (-1, *(1,) * (len(inner) + 2)))
    return (owner * count + head) * n


def _size(heads: tuple[int, ...]) -> int:
    """How many times the calls around a routed one run it."""
    return math.prod(map(abs, heads))


def _route(expert: Tensor, chosen: Tensor | None, count: int, m: int) -> Runs:
    """The route of entries [entries] to their experts, of which there are `count`; of the `chosen`
    ones, if that is given."""
    entries = None if chosen is None else ops.nonzero(chosen)[0]
    if entries is not None:
        expert = ops.take(expert, entries)
    sorting = ops.argsort(expert)
    owner, size = ops.take(expert, sorting), ops.shape(sorting)[0]
    order = ops.scatter(sorting[:, None], ops.arange(size, dtype="int32"), (size,))
    if entries is None:
        return Runs(owner, _ends(owner, count), sorting, order, True, m)
    return Runs(owner, _ends(owner, count), ops.take(entries, sorting), order, False, m)


def _capped_route(expert: Tensor, length: Any, capacity: Any, count: int, m: int) -> Runs:
    """`_route` of the first `capacity` entries of each expert in each sequence of `length`
    entries."""
    entries = ops.argsort(expert)
    owner, sequence = ops.take(expert, entries), entries // length
    # Entries of an expert and a sequence stand together, in order. One is too many if the entry
    # that stands `capacity` places before it is of the same two.
    place = ops.arange(ops.shape(entries)[0], dtype="int32")
    before = ops.maximum(place - capacity, 0)
    same = ops.logical_and(owner == ops.take(owner, before), sequence == ops.take(sequence, before))
    kept = ops.nonzero(ops.logical_or(place < capacity, ops.logical_not(same)))[0]
    owner, kept_entries = ops.take(owner, kept), ops.take(entries, kept)
    slot = ops.arange(1, ops.shape(kept)[0] + 1, dtype="int32")
    slots = ops.scatter(kept_entries[:, None], slot, ops.shape(expert))  # 0 for those left out
    order = ops.take(slots, ops.nonzero(slots)[0]) - 1
    return Runs(owner, _ends(owner, count), kept_entries, order, False, m)


def _ends(owner: Tensor, count: int) -> Tensor:
    """The slot after the last one of each expert, where `owner` is in ascending order."""
    experts = ops.arange(count, dtype="int32")
    return ops.cast(ops.searchsorted(owner, experts, side="right"), "int32")


def _slots(x: Tensor, route: Runs, depth: int) -> Tensor:
    """The rows of x in their slots."""
    d = x.shape[-1]
    rows = ops.reshape(x, (-1, d))

    @ops.custom_gradient  # type: ignore[untyped-decorator]
    def sent(rows: Tensor) -> tuple[Tensor, Any]:
        def gradient(*arguments: Tensor, upstream: Tensor = None) -> Tensor:
            dy = arguments[0] if upstream is None else upstream
            return _sums(dy, route, ops.shape(rows)[0])

        return ops.take(rows, route.entries // route.m, axis=0), gradient

    return ops.reshape(sent(rows), (*(1,) * (depth + 1), -1, 1, d))


def _summed(y: Tensor, route: Runs, rows: Any) -> Tensor:
    """Rows in slots summed over the slots of each token: [rows, d]."""

    @ops.custom_gradient  # type: ignore[untyped-decorator]
    def summed(y: Tensor) -> tuple[Tensor, Any]:
        def gradient(*arguments: Tensor, upstream: Tensor = None) -> Tensor:
            dy = arguments[0] if upstream is None else upstream
            return ops.take(dy, route.entries // route.m, axis=0)

        return _sums(y, route, rows), gradient

    return summed(y)


def _sums(y: Tensor, route: Runs, rows: Any) -> Tensor:
    """`_summed` without a gradient. A sum over sorted rows is far faster than a scatter, and gives
    as many rows as the last one says: a zero is added to that one."""
    d, m = y.shape[-1], route.m
    taken = ops.take(y, route.order, axis=0)
    if route.full:
        return ops.sum(ops.reshape(taken, (-1, m, d)), axis=1)
    ids = ops.take(route.entries, route.order) // m
    last = ops.reshape(rows - 1, (1,))
    taken = ops.concatenate([taken, ops.zeros((1, d), y.dtype)])
    return ops.segment_sum(taken, ops.concatenate([ids, last]), sorted=True)


def _permuted(x: Tensor, there: Tensor, back: Tensor) -> Tensor:
    """x [rows, d] in the order `there`, whose inverse is `back`."""

    @ops.custom_gradient  # type: ignore[untyped-decorator]
    def permuted(x: Tensor) -> tuple[Tensor, Any]:
        def gradient(*arguments: Tensor, upstream: Tensor = None) -> Tensor:
            dy = arguments[0] if upstream is None else upstream
            return ops.take(dy, back, axis=0)

        return ops.take(x, there, axis=0), gradient

    return permuted(x)


def _product(rows: Tensor, kernel: Tensor, route: Runs) -> Tensor:
    """rows [slots, d] times the kernels [experts, d, m] of their experts: [slots, m]. A gradient
    through slices would write all rows once for each expert."""
    experts = kernel.shape[0]
    ends = [0, *ops.unstack(route.ends, experts)]
    bounds = list(pairwise(ends))

    @ops.custom_gradient  # type: ignore[untyped-decorator]
    def product(rows: Tensor, kernel: Tensor) -> tuple[Tensor, Any]:
        kernels = ops.unstack(kernel, experts)

        def gradient(*arguments: Tensor, upstream: Tensor = None) -> tuple[Tensor, Tensor]:
            dy = arguments[0] if upstream is None else upstream
            back, own = [], []
            for (start, end), each in zip(bounds, kernels, strict=True):
                part = dy[start:end]
                back.append(ops.matmul(part, ops.transpose(each)))
                own.append(ops.matmul(ops.transpose(rows[start:end]), part))
            return ops.concatenate(back), ops.stack(own)

        made = [
            ops.matmul(rows[start:end], each)
            for (start, end), each in zip(bounds, kernels, strict=True)
        ]
        return ops.concatenate(made), gradient

    return product(rows, kernel)
