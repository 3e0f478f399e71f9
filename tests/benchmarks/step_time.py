"""A candidate's step against the same model written by hand in Keras:
python -m tests.benchmarks.step_time [--device gpu] [--backend jax] [--precision mixed_bfloat16]
    [--only NAME ...]

Prints one JSON object: for each dense seed program `ours_ms` and `hand_ms` a training step, medians
over rounds in which the two take turns in one process, on the same backend, flags and windows;
`ratio`, the median of the rounds' ratios; and `setup_s` of each, from the program to a compiled
step. The CPU runs 2 layers of 64 channels in plain graphs; a GPU runs 6 layers of 256 channels
under XLA.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from typing import Any

import numpy as np

from primitives.graph.build import Graph, build
from primitives.programs.seeds import load_seed
from workers.machine.backends import BACKENDS, configure
from workers.machine.devices import Layout
from workers.spec.task import ModelSpec, Task, TrainingSpec

TASKS = {
    "cpu": Task(training=TrainingSpec(jit="off")),
    "gpu": Task(
        model=ModelSpec(d_model=256, layers=6, sequence_length=256),
        training=TrainingSpec(jit="on"),
    ),
}
STEPS = {"cpu": 5, "gpu": 50}
ROUNDS = 7
WRITTEN = ("primer", "primer_ez", "transformer", "transformer_gelu", "transformer_pp")
"""The seed programs that `handwritten` has by hand."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=TASKS, default="cpu")
    parser.add_argument("--backend", choices=BACKENDS, default="tensorflow")
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16"), default="float32")
    parser.add_argument("--only", nargs="*", choices=WRITTEN, default=WRITTEN)
    given = parser.parse_args()
    gpu = given.device == "gpu"
    configure(given.backend, Layout(1, os.cpu_count() or 1 if gpu else 1, float(gpu)), None)
    result: dict[str, Any] = vars(given).copy()
    del result["only"]
    for name in given.only:
        result[name] = compare(name, given.device, given.backend, given.precision)
        print(name, result[name], file=sys.stderr, flush=True)
    print(json.dumps(result))


def compare(name: str, device: str, backend: Any, precision: Any) -> dict[str, float]:
    import keras

    from tests.benchmarks.handwritten import handwritten_engine
    from workers.engines.engine import make_engine
    from workers.model.shape import initial_model, model_shape

    keras.config.set_dtype_policy(precision)
    task = TASKS[device]
    training = task.training.model_copy(update={"precision": precision, "backend": backend})
    task = task.model_copy(update={"training": training})
    graph = build(load_seed(name, task.model.d_model))
    assert isinstance(graph, Graph)
    values = initial_model(model_shape(graph, task.model, 256), seed=0)
    ours, setup = timed(lambda: make_engine(graph, values, task))
    hand, hand_setup = timed(lambda: handwritten_engine(name, task))
    shape = (STEPS[device], task.training.batch_size, task.model.sequence_length + 1)
    windows = np.random.default_rng(0).integers(0, 256, shape)
    rounds = [
        (timed(lambda: ours.train(windows))[1], timed(lambda: hand.train(windows))[1])
        for _ in range(ROUNDS)
    ][1:]
    each = 1000 / STEPS[device]
    return {
        "ours_ms": round(each * statistics.median(a for a, _ in rounds), 3),
        "hand_ms": round(each * statistics.median(b for _, b in rounds), 3),
        "ratio": round(statistics.median(a / b for a, b in rounds), 3),
        "setup_s": round(setup, 2),
        "hand_setup_s": round(hand_setup, 2),
    }


def timed(function: Any) -> tuple[Any, float]:
    began = time.perf_counter()
    return function(), time.perf_counter() - began


if __name__ == "__main__":
    main()
