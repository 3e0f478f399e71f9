"""Optimisers from Keras, and the schedule that every run shares.

The schedule has no end point, so a run that stops early is comparable with one that goes on.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from workers.spec.task import OptimizerSpec


@keras.saving.register_keras_serializable(package="primevo")
class WarmupRsqrt(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]  # Keras has no types
    """Linear warm-up to `peak` over `warmup` steps, then peak * sqrt(warmup / step)."""

    def __init__(self, peak: float, warmup: int) -> None:
        super().__init__()
        self.peak, self.warmup = peak, warmup

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32") + 1.0
        return self.peak * ops.minimum(step / self.warmup, ops.sqrt(self.warmup / step))

    def get_config(self) -> dict[str, Any]:
        return {"peak": self.peak, "warmup": self.warmup}


def make_optimizer(spec: OptimizerSpec, clipped: bool = True) -> keras.optimizers.Optimizer:
    """The optimiser; one that is not `clipped` gets gradients that were clipped before."""
    clip_norm = spec.clip_norm if clipped else None
    rate = WarmupRsqrt(spec.learning_rate, spec.warmup_steps)
    if spec.name == "adafactor":
        return keras.optimizers.Adafactor(
            rate, weight_decay=spec.weight_decay or None, global_clipnorm=clip_norm
        )
    # TensorFlow's fused kernel for Adam does not pay: on a CPU the update takes 1 % of a step of
    # configs/quickstart.yaml; with 5 million parameters and 512 tokens 9 %, and would take 3 %.
    return keras.optimizers.Adam(  # AdamW is Adam with weight decay, which costs a pass even at 0
        rate,
        weight_decay=spec.weight_decay or None,
        beta_1=spec.beta_1,
        beta_2=spec.beta_2,
        global_clipnorm=clip_norm,
    )


def elementwise(spec: OptimizerSpec) -> bool:
    """Whether the update of a weight looks at nothing but its own entries (and the global norm), so
    that all weights may lie in one vector: fewer, larger kernels and far less to trace."""
    return spec.name == "adamw"
