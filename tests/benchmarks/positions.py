"""How a program scores with each kind of positions, at the trained length and beyond it:

    python -m tests.benchmarks.positions [--program transformer] [--steps 1000] [--seeds 1]

Prints a line of JSON for each kind and seed: `trained`, the mean loss in nats a token over windows
of the validation split that are as long as those of training; `last`, the loss at the last quarter
of windows that are 1, 2, 4 and 8 times as long, where a model of learned positions has none.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from primitives.programs.seeds import load_seed
from workers.data.tokens import load_tokens
from workers.export.export import trained_model
from workers.spec.outcome import Budget
from workers.spec.positions import POSITIONS
from workers.spec.task import ModelSpec, Task, TrainingSpec
from workers.training.evaluate import evaluate

TIMES, WINDOWS = (1, 2, 4, 8), 32


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.positions")
    parser.add_argument("--program", default="transformer")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=1)
    asked = parser.parse_args()
    for seed in range(asked.seeds):
        for kind in POSITIONS:
            print(json.dumps(measured(asked.program, kind, asked.steps, seed)), flush=True)


def measured(program: str, kind: Any, steps: int, seed: int) -> dict[str, Any]:
    task = Task(
        model=ModelSpec(d_model=64, layers=2, sequence_length=64, positions=kind),
        training=TrainingSpec(batch_size=32),
    )
    dna, began = load_seed(program, 64), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder, "weights.npz")
        outcome = evaluate(dna, task, Budget("steps", steps), seed, weights=str(kept))
        assert outcome.status == "completed", outcome
        model = trained_model(dna, task, kept)
    made = {"positions": kind, "seed": seed, "trained": round(outcome.val_loss or 0.0, 4)}
    lengths = TIMES[:1] if POSITIONS[kind].bounded else TIMES
    made["last"] = {times: round(last_quarter(model, task, times), 4) for times in lengths}
    return {**made, "step_ms": round(1000 * (outcome.step_time_s or 0.0), 1),
            "seconds": round(time.perf_counter() - began)}  # fmt: skip


def last_quarter(model: Any, task: Task, times: int) -> float:
    """The mean loss in nats at the last quarter of windows so many times as long as in training."""
    import keras

    split, length = load_tokens(task.data).validation, times * task.model.sequence_length
    starts = np.linspace(0, len(split) - length - 1, WINDOWS).astype(int)
    windows = np.stack([split[start : start + length + 1] for start in starts]).astype("int32")
    scores = np.concatenate([np.asarray(model(part[:, :-1])) for part in np.split(windows, 8)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    tail = slice(length - length // 4, None)
    return float(loss(windows[:, 1:][:, tail], scores[:, tail]))


if __name__ == "__main__":
    main()
