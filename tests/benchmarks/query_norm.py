"""PEER with a layer norm of its queries and without: validation loss, and how experts are used.

    python -m tests.benchmarks.query_norm --steps 300 --seeds 3

A small model whose middle block runs the seed program `peer`: 4,096 experts, 4 heads, k = 8. He
2024 has batch norm there, and tells a KL divergence of 1.06 nats with it and 1.52 without.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from statistics import fmean, stdev

from primitives import DNA, parse
from primitives.language.dna import MIDDLE
from primitives.programs.seeds import seed_text
from workers.spec.outcome import Budget
from workers.spec.task import ModelSpec, Task, TrainingSpec
from workers.training.evaluate import evaluate

WIDTH = 64
TASK = Task(
    model=ModelSpec(d_model=WIDTH, layers=3, sequence_length=64),
    training=TrainingSpec(batch_size=8, eval_batches=8, jit="off"),
)
SHOWN = ("val_loss", "experts_used", "experts_unevenness", "experts_gate_unevenness")


def programs() -> dict[str, DNA]:
    """The seed program, and the same with plain queries."""
    normed = seed_text("peer")
    plain = normed.replace("  normed = layer_norm(query)\n", "").replace(
        "SCORE(normed)", "SCORE(query)"
    )
    texts = {"layer norm": normed, "none": plain}
    return {name: replace(parse(text, name, WIDTH), every=MIDDLE) for name, text in texts.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args()
    for name, dna in programs().items():
        found = []
        for seed in range(1, chosen.seeds + 1):
            outcome = evaluate(dna, TASK, Budget("steps", chosen.steps), seed)
            assert outcome.val_loss is not None, outcome
            found.append({"val_loss": outcome.val_loss, **outcome.metrics})
        columns = {key: [run[key] for run in found] for key in SHOWN}
        told = (f"{key} {fmean(runs):.4f} ± {stdev(runs):.4f}" for key, runs in columns.items())
        print(f"{name}: {', '.join(told)}", flush=True)


if __name__ == "__main__":
    main()
