"""How fast a trained model is scored with memories: python -m tests.benchmarks.memories [--exact]

Prints one JSON object, for a vanilla Transformer of 2 layers of 64 channels, with start values, on
bytes of the installed corpus. Speed is tokens a second of model and memory together.

- external_tokens_per_second, knn_tokens_per_second: a datastore of `entries` contexts, 1,024
  nearest ones. The bound for `external` is 1,000 with 1,000,000 entries on 2 CPU cores.
- ..._tokens_per_cpu_second: by the CPU time of all cores that the memory takes, which other
  processes do not lengthen; what one idle core would do.
- recall: the share of the 1,024 nearest entries that FAISS finds, over 64 positions; build_seconds
  is what making its index takes.
- exact_tokens_per_second, with --exact: the search that needs no extra, over 256 positions.
- local, long, cache: the same positions without a datastore.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from primitives.graph.build import Graph, build
from primitives.programs.seeds import load_seed
from workers.data.tokens import load_tokens
from workers.machine.backends import configure
from workers.machine.devices import Layout
from workers.spec.task import ModelSpec, Task, TrainingSpec

ENTRIES, POSITIONS, CHECKED = 1_000_000, 4_096, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exact", action="store_true")
    exact = parser.parse_args().exact
    configure("tensorflow", Layout(1, 2, 0.0), None)
    from workers.memory import scores
    from workers.memory.contexts import contexts_of
    from workers.memory.memories import MEMORIES
    from workers.memory.nearest import ExactIndex, index_of
    from workers.model.shape import initial_model, model_shape

    task = Task(model=ModelSpec(sequence_length=64), training=TrainingSpec())
    graph, tokens = build(load_seed("transformer")), load_tokens(task.data)
    assert isinstance(graph, Graph)
    values = initial_model(model_shape(graph, task.model, tokens.vocabulary), seed=0)
    test = contexts_of(graph, task, values, tokens.test, POSITIONS)
    stored = contexts_of(graph, task, values, tokens.train, ENTRIES)
    found = {"entries": float(len(stored.labels)), "positions": float(len(test.labels))}
    found["model_tokens_per_second"] = len(stored.labels) / stored.seconds
    for name, row in MEMORIES.items():
        started, index = time.perf_counter(), None
        if row.stored:
            index = index_of(stored.g, row.apart == "distance")
            found[f"{name}_build_seconds"] = time.perf_counter() - started
        shared = None if row.shared == "none" else 1.0
        apart = (None, None) if row.apart == "nothing" else (1.0, 0.25)
        choice = scores.Choice(shared, *apart)
        started, used = time.perf_counter(), time.process_time()
        scores._chances(row, test, stored, index, choice)
        seconds, used = time.perf_counter() - started, time.process_time() - used
        found[f"{name}_tokens_per_second"] = len(test.labels) / (seconds + test.seconds)
        found[f"{name}_tokens_per_cpu_second"] = len(test.labels) / used
        if index is not None:
            _, places = index.nearest(test.g[:CHECKED], scores.NEIGHBOURS)
            plain = ExactIndex(stored.g, row.apart == "distance")
            _, best = plain.nearest(test.g[:CHECKED], scores.NEIGHBOURS)
            pairs = zip(places, best, strict=True)
            found[f"{name}_recall"] = float(
                np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in pairs])
            )
        if name == "external" and exact:
            plain, started = ExactIndex(stored.g, False), time.perf_counter()
            for first in range(0, 256, 64):
                plain.nearest(test.g[first : first + 64], scores.NEIGHBOURS)
            found["exact_tokens_per_second"] = 256 / (time.perf_counter() - started)
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))


if __name__ == "__main__":
    main()
