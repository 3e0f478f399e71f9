"""What training with memories costs: python -m tests.benchmarks.trime [--only NAME]

Prints one JSON object. Ratios of medians of training steps (forward, backward, update) that take
turns in one process, vanilla Transformer, 2 layers of 64 channels, 4,096 tokens a step, without
XLA; by the process' CPU time, which other processes do not lengthen.

- OBJECTIVE_over_next_token_VOCABULARY_LENGTH: a step of `trime`, `trime_long` or `trime_ext`
  against one of `next_token`, with 256 and with 4,096 tokens in the vocabulary, in sequences of 64
  and of 128. The bound for `trime` is 1.10.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np

from primitives.graph.build import Graph, build
from primitives.programs.seeds import load_seed
from workers.machine.backends import configure
from workers.machine.devices import Layout
from workers.spec.task import ModelSpec, Task, TrainingSpec

TOKENS, WIDTH, LAYERS = 4096, 64, 2
STEPS, ROUNDS = 3, 9
VOCABULARIES, LENGTHS = (256, 4096), (64, 128)
OBJECTIVES = ("next_token", "trime", "trime_long", "trime_ext")


def engine_of(objective: str, vocabulary: int, length: int) -> Any:
    from workers.engines.engine import make_engine
    from workers.model.shape import initial_model, model_shape

    training = TrainingSpec(batch_size=TOKENS // length, objective=objective, jit="off")
    task = Task(
        model=ModelSpec(d_model=WIDTH, layers=LAYERS, sequence_length=length), training=training
    )
    graph = build(load_seed("transformer", WIDTH))
    assert isinstance(graph, Graph)
    values = initial_model(model_shape(graph, task.model, vocabulary), seed=0)
    return make_engine(graph, values, task)


def steps(vocabulary: int, length: int) -> dict[str, float]:
    """Ratios to next_token at one size of the vocabulary and of sequences."""
    shape = (STEPS, TOKENS // length, length + 1)
    windows = np.random.default_rng(0).integers(0, vocabulary, shape)
    engines = {name: engine_of(name, vocabulary, length) for name in OBJECTIVES}
    seconds: dict[str, list[float]] = {name: [] for name in OBJECTIVES}
    for number in range(ROUNDS + 1):
        for name, engine in engines.items():
            started = time.process_time()
            engine.train(windows)
            if number:  # the first one warms up
                seconds[name].append((time.process_time() - started) / STEPS)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    base = medians["next_token"]
    end = f"{vocabulary}_{length}"
    found = {f"{name}_over_next_token_{end}": medians[name] / base for name in OBJECTIVES[1:]}
    return {**found, f"next_token_{end}_ms": 1000 * base}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=[str(size) for size in VOCABULARIES])
    chosen = parser.parse_args().only
    configure("tensorflow", Layout(1, 2, 0.0), None)
    found: dict[str, float] = {}
    for size in VOCABULARIES:
        if chosen in (None, str(size)):
            for length in LENGTHS:
                found |= steps(size, length)
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))


if __name__ == "__main__":
    main()
