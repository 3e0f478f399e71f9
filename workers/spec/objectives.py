"""What a model is trained to predict: one row an objective.

A new objective is a row here, or in a plug-in by `OBJECTIVES.register`. `objective` says what a row
holds, `trime` what the rows with memories compute.
"""

from __future__ import annotations

from typing import Any

from primitives.registry import Registry
from workers.spec import trime
from workers.spec.objective import (
    Batch,
    Head,
    Objective,
    Tokens,
    cross_entropy,
    even_windows,
    random_windows,
)

__all__ = [
    "MASKED", "MASKED_SHARE", "NEXT_TOKEN", "OBJECTIVES", "TRIME", "TRIME_EXT", "TRIME_LONG",
    "Batch", "Head", "Objective", "Tokens", "cross_entropy", "even_windows", "random_windows",
]  # fmt: skip

MASKED_SHARE = 0.15
"""Of positions that the masked objective hides (Devlin et al. 2019)."""


def _next_token(windows: Any, vocabulary: int, random: Any) -> Batch:
    """Windows a b c d: after a comes b, after b comes c, after c comes d."""
    return Batch(windows[:, :-1], windows[:, 1:])


def _masked(windows: Any, vocabulary: int, random: Any) -> Batch:
    """Hides MASKED_SHARE of the positions at random, and at least one of each sequence (as BERT
    does), so that even the smallest batch has a loss."""
    import keras
    from keras import ops

    tokens = windows[:, :-1]
    draws = keras.random.uniform(ops.shape(tokens), seed=random)
    lowest = ops.min(draws, axis=-1, keepdims=True)
    hidden = ops.logical_or(draws < MASKED_SHARE, draws <= lowest)
    return Batch(ops.where(hidden, vocabulary, tokens), tokens, ops.cast(hidden, "float32"))


NEXT_TOKEN = Objective(
    name="next_token",
    meaning="each token is predicted from those before it",
    batch=_next_token,
)

MASKED = Objective(
    name="masked",
    meaning="hidden tokens are predicted, from both sides where a program may",
    batch=_masked,
    bidirectional=True,
    extra_rows=1,
    example="example_masked.py",
    block="a block for masked language models",
    example_ends="fills it in",
    about_model="The last token of the vocabulary hides one that is to be filled in.",
)

_REMEMBERS = (
    "It was trained to predict by memories as well: `predict_next` has them. A call and `generate` "
    "go by the vocabulary alone."
)

TRIME = Objective(
    name="trime",
    meaning="the next token, by the vocabulary and by earlier positions of the sequence",
    batch=_next_token,
    losses=trime.local_losses,
    remembers=True,
    example="example_memory.py",
    about_model=_REMEMBERS,
)

TRIME_LONG = Objective(
    name="trime_long",
    meaning="the next token, by the vocabulary and by earlier positions of the document",
    batch=_next_token,
    draw=trime.random_segments,
    fixed=trime.even_segments,
    losses=trime.long_losses,
    remembers=True,
    example="example_memory.py",
    about_model=_REMEMBERS,
    group=trime.SEGMENTS,
    stretch=trime.stretch,
)

TRIME_EXT = Objective(
    name="trime_ext",
    meaning="the next token, by the vocabulary and by similar texts of the batch; scored as trime",
    batch=trime.external_batch,
    draw=trime.similar_windows,
    losses=trime.external_losses,
    scores=trime.local_losses,
    remembers=True,
    example="example_memory.py",
    about_model=_REMEMBERS,
    group=trime.SEGMENTS,
)

OBJECTIVES: Registry[Objective] = Registry(
    "objective", (NEXT_TOKEN, MASKED, TRIME, TRIME_LONG, TRIME_EXT)
)
