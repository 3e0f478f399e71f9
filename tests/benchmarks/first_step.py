"""From a program's text to the end of its first training step, on a warm worker:
python -m tests.benchmarks.first_step [--device gpu] [--candidates 4] [--jit on] [--backend jax]

Prints one JSON object; each program's line goes to stderr as it ends.

first_step_s: for each program, the seconds from its text to the loss of its first training step:
    parsing, typing, start values, tracing, compiling whatever the engine compiles before it trains,
    and the step itself, over random tokens. Seed programs and children of the transformer seed
    take turns; each is new to the process, which is set up as a worker is.
median: of these.
warm_up_s: the same for the transformer seed, which comes first, the framework's import included.

The CPU runs 2 layers of 64 channels on 64 tokens, batch 16, one thread, without XLA; a GPU runs 6
layers of 256 channels on 256 tokens, batch 32; both in plain graphs, as short budgets are, or with
`--jit on` under XLA. JAX compiles always, on a GPU with products in bfloat16, as it does for a
campaign there. Primevo's cache folder is a new one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice

import numpy as np

from primitives.graph.build import Graph, build
from primitives.language.text import parse, render
from primitives.programs.seeds import load_seed
from tests.benchmarks.children import children
from tests.reference.random_programs import DENSE_SEEDS
from workers.machine.backends import BACKENDS, configure
from workers.machine.devices import Layout, cpu_count
from workers.spec.task import ModelSpec, Task, TrainingSpec

TASKS = {
    "cpu": Task(
        model=ModelSpec(d_model=64, layers=2, sequence_length=64),
        training=TrainingSpec(batch_size=16),
    ),
    "gpu": Task(
        model=ModelSpec(d_model=256, layers=6, sequence_length=256),
        training=TrainingSpec(batch_size=32),
    ),
}
WARM_UP = "transformer"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=TASKS, default="cpu")
    parser.add_argument("--candidates", type=int, default=4)
    parser.add_argument("--backend", choices=BACKENDS, default="tensorflow")
    parser.add_argument("--jit", choices=("on", "off"), default="off")
    arguments = parser.parse_args()
    gpu, task = arguments.device == "gpu", TASKS[arguments.device]
    chosen = {"jit": arguments.jit, "backend": arguments.backend}
    if gpu and arguments.backend == "jax":
        chosen["precision"] = "mixed_bfloat16"
    training = task.training.model_copy(update=chosen)
    task = task.model_copy(update={"training": training})
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PRIMEVO_CACHE"] = folder
        began = time.perf_counter()
        configure(arguments.backend, Layout(1, cpu_count() if gpu else 1, float(gpu)), None)
        first_step_s(render(load_seed(WARM_UP, task.model.d_model)), task)
        warm_up = time.perf_counter() - began
        print(f"warm-up {warm_up:.2f} s", file=sys.stderr)
        seconds: dict[str, float] = {}
        for name, text in islice(programs(task), arguments.candidates):
            seconds[name] = round(first_step_s(text, task), 3)
            print(f"{name} {seconds[name]:.2f} s", file=sys.stderr)
    results = {
        "device": arguments.device,
        "backend": arguments.backend,
        "first_step_s": seconds,
        "median": round(statistics.median(seconds.values()), 3),
        "warm_up_s": round(warm_up, 3),
    }
    print(json.dumps(results))


def first_step_s(text: str, task: Task) -> float:
    from workers.engines.engine import make_engine
    from workers.model.shape import initial_model, model_shape

    shape = (1, task.training.batch_size, task.model.sequence_length + 1)
    windows = np.random.default_rng(0).integers(0, 256, shape)
    began = time.perf_counter()
    graph = build(parse(text))
    assert isinstance(graph, Graph)
    values = initial_model(model_shape(graph, task.model, 256), seed=0)
    make_engine(graph, values, task).train(windows)
    return time.perf_counter() - began


def programs(task: Task) -> Iterator[tuple[str, str]]:
    """Names and texts: seed programs and children in turn, then children only."""
    seeds = iter([name for name in DENSE_SEEDS if name != WARM_UP])
    for number, child in enumerate(children(task), 1):
        if (name := next(seeds, None)) is not None:
            yield name, render(load_seed(name, task.model.d_model))
        yield f"child {number}", render(child)


if __name__ == "__main__":
    main()
