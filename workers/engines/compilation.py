"""How a run is compiled, chosen from its budget: what compiling takes longer must come back in
steps.

Measured on an H100, 6 layers of 256 channels, 256 tokens, batch 32, from program to first step and
a step. TensorFlow: a plain graph 1.5 s and 13.4 ms; XLA 20 s and 5.6 ms; that with products in
bfloat16 25 s and 3.9 ms, so that there is no budget for which XLA pays and bfloat16 does not. JAX
compiles always: 12 s and 5.7 ms in float32, with bfloat16 9 s and 2.6 ms. On CPU a plain graph
steps as fast as XLA at these sizes.
"""

from __future__ import annotations

from workers.machine.backends import BACKENDS, accelerators
from workers.spec.outcome import Budget
from workers.spec.task import Task

XLA_PAYS_S = 35.0
"""From so much training, in seconds as a plain graph, on an accelerator."""

PLAIN_FLOPS = 2.0e13
"""Training FLOPs a second of a plain graph on an H100, for budgets that do not count seconds."""


def settled(task: Task, budget: Budget, step_flops: float, step_tokens: int) -> Task:
    """The task with its choices of compiling and precision made: no `auto` is left."""
    seconds = _seconds(budget, step_flops, step_tokens)
    kinds, training = accelerators(), task.training
    at_once = BACKENDS[training.backend].bfloat16
    compiled = "tpu" in kinds or ("gpu" in kinds and seconds >= XLA_PAYS_S)
    chosen = {
        "jit": "on" if compiled else "off",
        "precision": "mixed_bfloat16" if compiled or kinds & at_once else "float32",
    }
    chosen = {key: value for key, value in chosen.items() if getattr(training, key) == "auto"}
    return task.model_copy(update={"training": training.model_copy(update=chosen)})


def _seconds(budget: Budget, step_flops: float, step_tokens: int) -> float:
    flops = {
        "steps": step_flops, "tokens": step_flops / step_tokens, "flops": 1.0,
        "seconds": PLAIN_FLOPS,
    }  # fmt: skip
    return budget.amount * flops[budget.unit] / PLAIN_FLOPS
