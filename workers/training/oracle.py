"""The random-token oracle: a program that predicts what cannot be predicted has seen it.

On independent uniform tokens no causal model is better than ln V nats a token. A type check proves
as much of a program's evaluation; the oracle trusts nothing, and sees what training learns to
exploit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from primitives.graph.build import Graph, IllTyped, build
from primitives.language.dna import DNA
from workers.machine.backends import use_backend
from workers.machine.progress import Tell, silent
from workers.spec.fit import window_length
from workers.spec.task import ModelSpec, OptimizerSpec, Task, TrainingSpec

VOCABULARY = 8
CALL = 100
"""Steps of one call of the engine."""

BATCHES, SCORED = 400, 10
"""Batches that are scored in all, and in one call: the standard error is that of the calls."""

TASK = Task(
    model=ModelSpec(d_model=32, layers=2, sequence_length=16),
    optimizer=OptimizerSpec(learning_rate=3e-3, warmup_steps=100),
    training=TrainingSpec(batch_size=32, jit="off"),
)

DEVIATIONS = 4.0
"""Standard errors below the bound from which a score is no accident."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Mean loss on fresh random tokens after training on others, in nats a token, its standard
    error, and `bound`, ln V, which a causal program cannot go below."""

    loss: float
    standard_error: float
    bound: float

    @property
    def leaks(self) -> bool:
        return self.loss < self.bound - DEVIATIONS * self.standard_error


def oracle(dna: DNA, steps: int, seed: int = 0, tell: Tell = silent) -> Verdict:
    """Trains the program on `steps` batches of random tokens, scores it on others. `tell` counts
    trained and scored batches. ValueError where it has no type."""
    use_backend(TASK.training.backend)
    from workers.engines.engine import make_engine
    from workers.model.shape import initial_model, model_shape

    graph = build(dna, bidirectional=True)
    if isinstance(graph, IllTyped):
        raise ValueError(f"the program has no type: {graph}")
    rng = np.random.default_rng(seed)
    shape = (TASK.training.batch_size, window_length(TASK))
    task = oracle_task(graph)
    values = initial_model(model_shape(graph, task.model, VOCABULARY), seed)
    engine = make_engine(graph, values, task, seed)
    for first in range(0, steps, CALL):
        engine.train(rng.integers(0, VOCABULARY, (min(CALL, steps - first), *shape)))
        tell(min(first + CALL, steps), steps + BATCHES)
    losses = []
    for first in range(0, BATCHES, SCORED):
        losses.append(engine.score(rng.integers(0, VOCABULARY, (SCORED, *shape))))
        tell(steps + first + SCORED, steps + BATCHES)
    error = float(np.std(losses, ddof=1)) / math.sqrt(len(losses))
    return Verdict(float(np.mean(losses)), error, math.log(VOCABULARY))


def oracle_task(graph: Graph) -> Task:
    """TASK with as many layers as it takes for one of them to run the program."""
    layers = max(TASK.model.layers, graph.every)
    return TASK.model_copy(update={"model": TASK.model.model_copy(update={"layers": layers})})
