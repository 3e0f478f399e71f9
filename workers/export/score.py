"""The score of an exported model: the same windows and the same loss as a candidate's, computed by
the model that leaves, in the precision in which it computes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from workers.data.tokens import load_tokens
from workers.spec.fit import needed_tokens, window_length
from workers.spec.metrics import of_task
from workers.spec.objectives import OBJECTIVES
from workers.spec.task import Task

SPLITS = {"validation": "val", "test": "test"}


def exported_score(model: Any, task: Task, by_task: bool = False) -> dict[str, Any]:
    """`precision`, the dtype of the model's products, and for each split its loss in nats a token
    and in bits a byte: `val_loss`, `val_bpb`, `test_loss`, `test_bpb`, and `transfer_loss` and
    `transfer_bpb` where the task has another text. `test_ece` and `test_brier` say how far the
    model's probabilities on the test split can be taken at their word; where documents have tasks,
    `test_loss/NAME` and `test_bpb/NAME` are of a task's part of it. `by_task` says whether the
    model wants to know of tasks."""
    from workers.engines.calibration import figures

    splits = load_tokens(task.data)
    found: dict[str, Any] = {"precision": model.dtype_policy.name}
    for split, short in SPLITS.items():
        loss, parts = _loss(model, getattr(splits, split), task, by_task)
        found[f"{short}_loss"] = loss
        found[f"{short}_bpb"] = loss / math.log(2) / splits.bytes_per_token[split]
        if split == "test":
            found |= {f"test_{name}": value for name, value in figures(parts).items()}
    for name, width in splits.tasks.items():
        if len(part := splits.of_task(name)) >= needed_tokens(task):
            loss, _ = _loss(model, part, task, by_task)
            own = {"loss": loss, "bpb": loss / math.log(2) / width}
            found |= {of_task("test", name).format(score): value for score, value in own.items()}
    if task.transfer is not None:
        other = load_tokens(task.transfer, like=task.data)
        loss, _ = _loss(model, other.test, task, by_task)
        found["transfer_loss"] = loss
        found["transfer_bpb"] = loss / math.log(2) / other.bytes_per_token["test"]
    return found


def _loss(model: Any, split: Any, task: Task, by_task: bool) -> tuple[float, list[Any]]:
    """The mean loss over a split's fixed slice, as `evaluate` takes it, and the sums that its
    calibration is computed from."""
    from keras import ops

    from workers.engines.calibration import SHAPES, sums
    from workers.model.model import prepared

    objective, training = OBJECTIVES[task.training.objective], task.training
    shape = (training.eval_batches, training.batch_size)
    total = weight = 0.0
    parts: list[Any] = [0.0] * len(SHAPES)
    for windows in objective.fixed(split, window_length(task), shape):
        batch, read = prepared(windows, model.vocabulary, ops.zeros([2], "int32"), objective)
        tokens = read if by_task else batch.tokens
        if objective.remembers:
            logits, memory = model.remember(tokens)
        else:
            logits, memory = model(tokens), None
        losses = np.asarray(objective.scoring(logits, batch, _Logits(memory)))
        own = sums(ops.cast(logits, "float32"), batch.targets, batch.counts)
        parts = [so_far + np.asarray(part) for so_far, part in zip(parts, own, strict=True)]
        counts = np.ones(losses.shape) if batch.counts is None else np.asarray(batch.counts)
        total += float(np.sum(losses * counts))
        weight += float(np.sum(counts))
    return total / weight, parts


@dataclass(frozen=True, slots=True)
class _Logits:
    """The head of a model that gives logits already: what an objective's loss is told of it."""

    memory: Any

    def logits(self, x: Any) -> Any:
        """Logits [batch, T, rows] as they are."""
        return x

    def losses(self, x: Any, targets: Any) -> Any:
        """Cross entropy [batch, T], in nats, from logits [batch, T, rows]."""
        from keras import ops

        scores = ops.cast(x, "float32")
        return ops.sparse_categorical_crossentropy(targets, scores, from_logits=True)

    def scored(self, x: Any, targets: Any) -> tuple[Any, Any]:
        """Cross entropy and logits [batch, T] of targets, from all logits [batch, T, rows]."""
        from keras import ops

        scores = ops.cast(x, "float32")
        return self.losses(x, targets), ops.take_along_axis(
            scores, ops.cast(targets, "int32")[..., None], axis=-1
        )[..., 0]
