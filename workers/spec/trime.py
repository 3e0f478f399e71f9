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
from typing import TYPE_CHECKING, Any

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


def local_losses(x: Any, batch: Batch, head: Head) -> Any:
    """Memories are the earlier positions of the same sequence (TrimeLM)."""
    return memory_losses(x, batch, head, 1, _earlier(x.shape[1]))


def long_losses(x: Any, batch: Batch, head: Head) -> Any:
    """Memories are the earlier positions of the same document among SEGMENTS consecutive segments
    (TrimeLM-long)."""
    from keras import ops

    document = _documents(_grouped(batch.tokens, SEGMENTS))
    same = ops.equal(document[:, :, None], document[:, None, :])
    return memory_losses(
        x, batch, head, SEGMENTS, ops.logical_and(same, _earlier(SEGMENTS * x.shape[1]))
    )


def external_losses(x: Any, batch: Batch, head: Head) -> Any:
    """Memories are all positions of the group's other sequences, and the earlier ones of the same
    sequence where `batch.local` is 1 (TrimeLM-ext). In training alone."""
    import numpy as np
    from keras import ops

    length = x.shape[1]
    sequence = np.arange(SEGMENTS * length) // length
    own = sequence[:, None] == sequence
    local = ops.repeat(_grouped(batch.local[:, None], SEGMENTS), length, axis=1) > 0
    kept = ops.logical_and(own & _earlier(SEGMENTS * length), local[:, :, None])
    return memory_losses(x, batch, head, SEGMENTS, ops.logical_or(~own, kept))


def memory_losses(x: Any, batch: Batch, head: Head, group: int, allowed: Any) -> Any:
    """x [batch, T, d_model] -> losses [batch, T] in nats, -log P of the targets. A batch's
    sequences form groups of `group`, and `allowed` [groups or 1, N, N] says of the N positions of a
    group which memory (last axis) each may use.

    With the cross entropy L of the logits alone, z the target's logit, and s and s' the logarithms
    of the sums over all allowed memories and over those that have the target for a label,

        -log P  =  L + log(1 + exp(s - z - L)) - log(1 + exp(s' - z)),

    in which a position without memories has L and nothing else. Powers of e are taken once, so that
    s' leaves out memories that are less similar than the most similar one by more than FAR."""
    from keras import ops

    plain, right = head.scored(x, batch.targets)
    g = _grouped(ops.cast(head.memory, "float32"), group)
    labels = _grouped(batch.targets, group)
    similar = ops.matmul(g * float(g.shape[-1] ** -0.5), ops.swapaxes(g, -1, -2))
    similar = similar + ops.where(allowed, 0.0, LOWEST)
    nearest = ops.stop_gradient(ops.max(similar, axis=-1, keepdims=True))
    mass, nearest = ops.exp(similar - nearest), nearest[..., 0]
    fits = ops.cast(ops.equal(labels[:, :, None], labels[:, None, :]), mass.dtype)
    of_all = nearest + ops.log(ops.sum(mass, axis=-1))
    fitting, least = ops.sum(mass * fits, axis=-1), math.exp(-FAR)
    of_fits = nearest + ops.log(ops.maximum(fitting, least))
    of_all = ops.reshape(of_all, plain.shape)
    of_fits = ops.reshape(ops.where(fitting > least, of_fits, LOWEST), plain.shape)
    return plain + ops.softplus(of_all - right - plain) - ops.softplus(of_fits - right)


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


def _earlier(count: int) -> Any:
    """[count, count]: whether the position of the column is before that of the row. A position's
    own label is what it predicts, and so none of its memories."""
    import numpy as np

    return np.tri(count, k=-1, dtype=bool)


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
