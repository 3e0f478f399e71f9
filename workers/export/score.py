"""The score of an exported model: the same windows and the same loss as a candidate's, computed by
the model that leaves, in the precision in which it computes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from workers.data.tokens import load_tokens
from workers.spec.task import Task

SPLITS = {"validation": "val", "test": "test"}


def exported_score(model: Any, task: Task) -> dict[str, Any]:
    """`precision`, the dtype of the model's products, and for each split its loss in nats a token
    and in bits a byte: `val_loss`, `val_bpb`, `test_loss`, `test_bpb`."""
    splits = load_tokens(task.data)
    found: dict[str, Any] = {"precision": model.dtype_policy.name}
    for split, short in SPLITS.items():
        loss = _loss(model, getattr(splits, split), task)
        found[f"{short}_loss"] = loss
        found[f"{short}_bpb"] = loss / math.log(2) / splits.bytes_per_token[split]
    return found


def _loss(model: Any, split: Any, task: Task) -> float:
    """The mean loss over a split's fixed slice: windows at even distances over the whole split."""
    training = task.training
    views = np.lib.stride_tricks.sliding_window_view(split, task.model.sequence_length + 1)
    count = training.eval_batches * training.batch_size
    places = np.linspace(0, len(views) - 1, count).astype(np.int64)
    total = weight = 0.0
    for batch in places.reshape(training.eval_batches, training.batch_size):
        tokens, targets, counts = _asked(views[batch].astype(np.int32), model.vocabulary, task)
        losses = _losses(model(tokens), targets)
        total += float(np.sum(losses * counts))
        weight += float(np.sum(counts))
    return total / weight


def _asked(windows: Any, rows: int, task: Task) -> tuple[Any, Any, Any]:
    """Tokens, targets and how much each position counts, as a candidate is scored on windows
    [batch, T + 1]. `rows` counts those of the embedding."""
    if task.training.objective != "masked":
        return windows[:, :-1], windows[:, 1:], np.ones(windows[:, 1:].shape)
    import keras
    from keras import ops

    from workers.model.model import MASKED_SHARE, Seeds

    tokens, seed = windows[:, :-1], Seeds(ops.zeros([2], "int32"))
    hidden = np.asarray(keras.random.uniform(tokens.shape, seed=seed)) < MASKED_SHARE
    return np.where(hidden, rows - 1, tokens), tokens, hidden


def _losses(logits: Any, targets: Any) -> Any:
    """Cross entropy [batch, T], in nats, from logits [batch, T, rows]."""
    from keras import ops

    scores = ops.cast(logits, "float32")
    return np.asarray(ops.sparse_categorical_crossentropy(targets, scores, from_logits=True))
