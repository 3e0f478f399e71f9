"""What a training step takes the gradient of: the objective's losses, what blocks add to them, and
what they ask of the trainer, who alone knows rewards, other passes and other layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import ops

from primitives.kernels.asking import disagreement, rewarded
from workers.model.ends import EMBEDDING_AND_HEAD, EPSILON, EmbeddingAndHead
from workers.model.model import (
    Auxiliary,
    Layer,
    Passed,
    outer_count,
    passed,
    prepared,
    weighed,
    with_weights,
)
from workers.spec.objective import Objective

SECOND_PASS = 1 << 29
"""Added to the second number of a seed for the draws of a step's second pass."""


def training_loss(
    layers: Sequence[Layer], weights: Sequence[Any], windows: Any, seed: Any,
    objective: Objective, outer: EmbeddingAndHead = EMBEDDING_AND_HEAD,
) -> tuple[Any, Any, dict[int, Any]]:  # fmt: skip
    """(what the gradient is of, mean token loss, new values of states by position of the weight).
    Auxiliary losses count here alone, and so does what a block asks for (`_asked`). Where a layer
    wants consistency, the batch passes twice, with the same tokens hidden and other draws, and the
    total is the sum of both passes and of their disagreement; states follow the first. A batch in
    which no position counts has a loss of 0."""
    batch, tokens = prepared(windows, weights[0].shape[0], seed, objective)
    agree = max((layer.consistency for layer in layers), default=0.0)
    seeds = [seed]
    if agree:
        seeds.append(seed + ops.convert_to_tensor([0, SECOND_PASS], seed.dtype))
    made = [passed(layers, weights, batch, tokens, True, each, objective, outer) for each in seeds]
    judged = [_judged(each, batch.counts) for each in made]
    total, loss = judged[0]
    if agree:
        second, other = judged[1]
        total = total + second + agree * _apart(made[0], made[1], batch.counts)
        loss = (loss + other) / 2
    return total, loss, _together(layers, weights, made[0].auxiliary)


def _judged(made: Passed, counts: Any) -> tuple[Any, Any]:
    """A pass' share of what the gradient is of, and its mean token loss."""
    summed, weight = weighed(made.losses, counts)
    loss = summed if counts is None else summed / ops.maximum(weight, EPSILON)
    total = loss
    for extra in (*made.auxiliary.losses, *_asked(made, loss)):
        total = total + extra
    return total, loss


def _asked(made: Passed, loss: Any) -> list[Any]:
    """What REINFORCE and BASELINE ask for. The reward of a sampled expert is the negative loss of
    its token, against the batch's mean; a baseline learns to foresee it. (What it foresees is taken
    from the reward where the block's losses are made.)"""
    policies, baselines = made.auxiliary.policies, made.auxiliary.baselines
    if not (policies or baselines):
        return []
    return rewarded(list(policies), list(baselines), loss - made.losses)


def _apart(first: Passed, second: Passed, counts: Any) -> Any:
    """How far the predictions of two passes are apart, the mean over positions that count."""
    logits = (each.head.logits(each.x) for each in (first, second))
    apart, weight = weighed(disagreement(*logits), counts)
    return apart if counts is None else apart / ops.maximum(weight, EPSILON)


def _together(
    layers: Sequence[Layer], weights: Sequence[Any], auxiliary: Auxiliary
) -> dict[int, Any]:
    """The new values of states. One that the layers of a program share moves by 1, in the direction
    in which they want to move it on average."""
    groups: dict[tuple[int, str], list[int]] = {}
    place = outer_count(layers, weights)
    for layer in with_weights(layers):
        for spec in layer.specs:
            if place in auxiliary.together:
                groups.setdefault((id(layer.train), spec.name), []).append(place)
            place += 1
    updates = dict(auxiliary.updates)
    for places in groups.values():
        wanted = sum(auxiliary.together[each] for each in places)
        updates |= {each: weights[each] + ops.sign(wanted) for each in places}
    return updates
