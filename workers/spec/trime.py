"""Training with in-batch memories (TRIME: Zhong, Lei and Chen 2022, arXiv 2205.12674).

A context c_t, the tokens up to position t, is remembered by a vector g(c_t) together with the token
that came next. The next token w is then predicted by

    P(w | c_t)  ~  exp(E_w . f(c_t))  +  sum over memories j with label w of exp(sim(g_t, g_j)),

sim(q, k) = q . k / sqrt(d). Objectives differ in which memories a position may use; all of them are
positions of its own group of sequences, so similarities have the shape [groups, N, N] for N
positions of a group, and those of the whole batch are never made.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from workers.spec.objective import Batch, Head, Tokens, even_windows, random_windows

if TYPE_CHECKING:
    import numpy as np

SEGMENTS = 4
"""Sequences of a group: consecutive segments of one text, or texts that BM25 finds similar."""

LOCAL_DROPPED = 0.9
"""How often a sequence of `trime_ext` does without its own memories in training, so that it learns
to use those of others (section 4.3)."""

LOWEST = -1e30
"""Stands for the similarity to a memory that a position may not use: e to it is 0."""


FAR = 69.0
"""Nats: e to the -69 is the smallest share of a mass that float32 keeps with all its digits."""

BLOCK = 128
"""Positions whose similarities are taken at once where memories come before what remembers them: a
block has none behind its own end."""


def local_losses(x: Any, batch: Batch, head: Head) -> Any:
    """Memories are the earlier positions of the same sequence (TrimeLM)."""
    return memory_losses(x, batch, head, 1, _earlier, True)


def long_losses(x: Any, batch: Batch, head: Head) -> Any:
    """Memories are the earlier positions of the same document among SEGMENTS consecutive segments
    (TrimeLM-long)."""
    from keras import ops

    document = _documents(_grouped(batch.tokens, SEGMENTS))

    def allowed(rows: slice, columns: slice) -> Any:
        same = ops.equal(document[:, rows, None], document[:, None, columns])
        return ops.logical_and(same, _earlier(rows, columns))

    return memory_losses(x, batch, head, SEGMENTS, allowed, True)


def external_losses(x: Any, batch: Batch, head: Head) -> Any:
    """Memories are all positions of the group's other sequences, and the earlier ones of the same
    sequence where `batch.local` is 1 (TrimeLM-ext). In training alone."""
    import numpy as np
    from keras import ops

    length = x.shape[1]
    every = slice(0, SEGMENTS * length)
    sequence = np.arange(SEGMENTS * length) // length
    own = sequence[:, None] == sequence
    local = ops.repeat(_grouped(batch.local[:, None], SEGMENTS), length, axis=1) > 0
    kept = ops.logical_and(own & _earlier(every, every), local[:, :, None])
    allowed = ops.logical_or(~own, kept)
    return memory_losses(x, batch, head, SEGMENTS, lambda rows, columns: allowed, False)


Allowed = Callable[[slice, slice], Any]
"""For some positions of a group, and the memories of some others: which memory (last axis) each may
use, [groups or 1, rows, columns]."""


def memory_losses(
    x: Any, batch: Batch, head: Head, group: int, allowed: Allowed, causal: bool
) -> Any:
    """x [batch, T, d_model] -> losses [batch, T] in nats, -log P of the targets. A batch's
    sequences form groups of `group`; where `causal`, all memories are earlier positions of the
    group.

    With the cross entropy L of the logits alone, z the target's logit, and s and s' the logarithms
    of the sums over all allowed memories and over those that have the target for a label,

        -log P  =  L + log(1 + exp(s - z - L)) - log(1 + exp(s' - z)),

    in which a position without memories has L and nothing else. Powers of e are taken once, so that
    s' is of no memory where its memories' share of all is less than e to the -FAR."""
    from keras import ops

    plain, right = head.scored(x, batch.targets)
    g = _grouped(ops.cast(head.memory, "float32"), group)
    logs = _log_masses(g, _grouped(batch.targets, group), allowed, causal)
    of_all, of_fits = (ops.reshape(logs[which], plain.shape) for which in (0, 1))
    return plain + ops.softplus(of_all - right - plain) - ops.softplus(of_fits - right)


class _Block(NamedTuple):
    """Similarities of some positions with the memories that they may have, as each memory's
    `shares` of the position's mass [groups, rows, columns]; `fits` is 1 where the memory has the
    position's label. The logarithm of the mass, and the share of what fits, are [groups, rows]."""

    rows: slice
    columns: slice
    shares: Any
    fits: Any
    of_all: Any
    fitting: Any


def _log_masses(g: Any, labels: Any, allowed: Allowed, causal: bool) -> Any:
    """Logarithms [2, groups, N] of the sums of e to the similarities of g [groups, N, d], over all
    allowed memories and over those with the position's label. The gradient takes two passes over
    all similarities, besides products, where one derived op by op takes a dozen."""
    from keras import ops

    count, least, scale = g.shape[1], math.exp(-FAR), float(g.shape[-1] ** -0.5)
    size = BLOCK if causal and count % BLOCK == 0 else count
    rows = [slice(first, first + size) for first in range(0, count, size)]

    @ops.custom_gradient  # type: ignore[untyped-decorator]
    def logs(g: Any) -> tuple[Any, Any]:
        blocks = [_block(g, labels, allowed, each, scale) for each in rows]
        of_all = ops.concatenate([block.of_all for block in blocks], axis=-1)
        fitting = ops.concatenate([block.fitting for block in blocks], axis=-1)
        found = fitting > least
        of_fits = of_all + ops.log(ops.maximum(fitting, least))

        def gradient(*arguments: Any, upstream: Any = None) -> Any:
            by_logs = arguments[0] if upstream is None else upstream
            by_all, by_fits = by_logs[0], by_logs[1]
            by_fits = ops.where(found, by_fits / ops.maximum(fitting, least), 0.0)
            by_rows, by_columns = [], []
            for block in blocks:
                rows, columns = block.rows, block.columns
                by_share = by_all[:, rows, None] + block.fits * by_fits[:, rows, None]
                by_similar = block.shares * by_share
                by_rows.append(ops.matmul(by_similar, g[:, columns]))
                made = ops.matmul(ops.swapaxes(by_similar, -1, -2), g[:, rows])
                behind = [[0, 0], [0, count - columns.stop], [0, 0]]
                by_columns.append(ops.pad(made, behind) if columns.stop < count else made)
            made = ops.concatenate(by_rows, axis=1) + sum(by_columns[1:], by_columns[0])
            return made * scale

        return ops.stack([of_all, ops.where(found, of_fits, LOWEST)]), gradient

    return logs(g)


def _block(g: Any, labels: Any, allowed: Allowed, rows: slice, scale: float) -> _Block:
    """What these rows have of memories, all of which come before the last row's end."""
    from keras import ops

    columns = slice(0, rows.stop)
    similar = ops.matmul(g[:, rows] * scale, ops.swapaxes(g[:, columns], -1, -2))
    similar = similar + ops.where(allowed(rows, columns), 0.0, LOWEST)
    nearest = ops.max(similar, axis=-1)
    shares = ops.softmax(similar, axis=-1)  # that of the nearest is 1 over the mass over its own
    of_all = nearest - ops.log(ops.max(shares, axis=-1))
    fits = ops.cast(ops.equal(labels[:, rows, None], labels[:, None, columns]), shares.dtype)
    return _Block(rows, columns, shares, fits, of_all, ops.sum(shares * fits, axis=-1))


def external_batch(windows: Any, vocabulary: int, random: Any) -> Batch:
    """The next token, and which sequences may remember themselves: few, at random."""
    import keras
    from keras import ops

    draws = keras.random.uniform((windows.shape[0],), seed=random)
    local = ops.cast(draws >= LOCAL_DROPPED, "float32")
    return Batch(windows[:, :-1], windows[:, 1:], local=local)


def random_segments(
    tokens: Tokens, length: int, shape: tuple[int, int], rng: np.random.Generator
) -> Tokens:
    """Windows [*shape, length] in groups of consecutive ones, which begin at random places."""
    steps, batch = shape
    groups = (steps, batch // SEGMENTS)
    stretches = random_windows(tokens, stretch(length), groups, rng)
    windows: Tokens = segments(stretches, length).reshape(*shape, length)
    return windows


def even_segments(tokens: Tokens, length: int, shape: tuple[int, int]) -> Tokens:
    """Windows [*shape, length] in groups of consecutive ones at even distances."""
    batches, batch = shape
    groups = even_windows(tokens, stretch(length), (batches, batch // SEGMENTS))
    windows: Tokens = segments(groups, length).reshape(*shape, length)
    return windows


def similar_windows(
    tokens: Tokens, length: int, shape: tuple[int, int], rng: np.random.Generator
) -> Tokens:
    """Windows [*shape, length] in groups of similar ones (see `data.similar`), each group as likely
    as any other."""
    import numpy as np

    from workers.data.similar import similar_segments

    steps, batch = shape
    starts = similar_segments(tokens, length - 1, SEGMENTS)
    groups = starts[rng.integers(0, len(starts), (steps, batch // SEGMENTS))]
    views = np.lib.stride_tricks.sliding_window_view(tokens, length)
    return views[groups.reshape(shape)]


def segments(windows: Any, length: int) -> Any:
    """Stretches [..., SEGMENTS T + 1] of text as windows [..., SEGMENTS, T + 1] whose targets stand
    one after the other; `length` is T + 1."""
    import numpy as np

    views = np.lib.stride_tricks.sliding_window_view(windows, length, axis=-1)
    return views[..., :: length - 1, :]


def stretch(length: int) -> int:
    """How many tokens SEGMENTS windows of `length` take that overlap by one."""
    return SEGMENTS * (length - 1) + 1


def _earlier(rows: slice, columns: slice) -> Any:
    """[rows, columns]: whether the position of the column is before that of the row. A position's
    own label is what it predicts, and so none of its memories."""
    import numpy as np

    return np.arange(columns.start, columns.stop) < np.arange(rows.start, rows.stop)[:, None]


def _grouped(x: Any, group: int) -> Any:
    """[batch, T, ...] -> [batch / group, group T, ...]."""
    from keras import ops

    batch, length, *rest = x.shape
    return x if group == 1 else ops.reshape(x, (batch // group, group * length, *rest))


def _documents(tokens: Any) -> Any:
    """Which document the next token belongs to, counted from the first of a stretch [..., N]."""
    from keras import ops

    from workers.data.tokens import SEPARATOR_ID

    return ops.cumsum(ops.cast(ops.equal(tokens, SEPARATOR_ID), "int32"), axis=-1)
