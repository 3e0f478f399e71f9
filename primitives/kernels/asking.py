"""What a block asks of whoever trains it, who alone knows rewards and other passes, as losses.

Choices and what is foreseen of their reward are [batch, T], as a pass leaves them in
`balancing.Run`.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from primitives.kernels.balancing import Run

Tensor = Any


def foreseen_losses(run: Run) -> list[Tensor]:
    """What the baselines of a pass take from the reward of its choices."""
    foreseen = [ops.stop_gradient(made) for made, _ in run.baselines]
    return [ops.mean(chances * made) for chances in run.policies for made in foreseen]


def rewarded(
    policies: list[Tensor], baselines: list[tuple[Tensor, float]], better: Tensor
) -> list[Tensor]:
    """Of choices, and of what foresees their reward: `better` [batch, T] is by how much a token's
    loss is below the batch's mean. No gradient reaches it."""
    better = ops.stop_gradient(better)
    return [
        *(-ops.mean(chances * better) for chances in policies),
        *(weight * ops.mean(ops.square(foreseen - better)) for foreseen, weight in baselines),
    ]


def disagreement(first: Tensor, second: Tensor) -> Tensor:
    """(KL(p, q) + KL(q, p)) / 2 at each position [batch, T], for the predictions p and q of two
    passes, from their logits [batch, T, vocabulary] (Zuo et al. 2022, THOR, equation 5)."""
    p, q = (keras.activations.log_softmax(ops.cast(each, "float32")) for each in (first, second))
    return 0.5 * ops.sum((ops.exp(p) - ops.exp(q)) * (p - q), axis=-1)
