"""Text from an exported model, with and without what is kept of earlier positions:
python -m tests.benchmarks.generate [--length 512] [--only NAME ...] [--threads 2]

Prints one JSON object. For each seed program, in a model of 4 layers of 128 channels with fresh
weights: `cached` and `whole`, tokens a second from a prompt of 16 tokens until all positions are
taken, medians of rounds in which the two take turns in one process, compilation left out; `ratio`,
the median of the rounds' ratios; and `first_s`, the seconds of the first cached call, compilation
included. Keras runs on the backend that KERAS_BACKEND names, TensorFlow if it names none.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from types import ModuleType
from typing import Any

from primitives.graph.build import Graph, build
from primitives.programs.seeds import load_seed
from workers.export.source import module_source, names
from workers.spec.task import ModelSpec, Task

PROGRAMS = ("transformer", "primer_ez", "primer", "prefix_mean", "switch", "peer")
WIDTH, LAYERS, PROMPT, ROUNDS = 128, 4, 16, 3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--only", nargs="*", default=PROGRAMS)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    result: dict[str, Any] = {"length": given.length, "threads": given.threads}
    for name in given.only:
        result[name] = measured(name, given.length)
        print(name, result[name], file=sys.stderr, flush=True)
    print(json.dumps(result))


def measured(name: str, length: int) -> dict[str, float]:
    task = Task(model=ModelSpec(d_model=WIDTH, layers=LAYERS, sequence_length=length))
    graph = build(load_seed(name, WIDTH))
    assert isinstance(graph, Graph)
    source = module_source(load_seed(name, WIDTH), graph, task, 256, names("it"), {"Program": name})
    module = ModuleType("it")
    exec(compile(source, "it", "exec"), module.__dict__)
    model = module.build_model()
    first = seconds(model, length, True)
    seconds(model, length, False)
    rounds = [[seconds(model, length, kept) for kept in (True, False)] for _ in range(ROUNDS)]
    new = length - PROMPT
    return {
        "cached": round(new / statistics.median(cached for cached, _ in rounds), 1),
        "whole": round(new / statistics.median(whole for _, whole in rounds), 1),
        "ratio": round(statistics.median(whole / cached for cached, whole in rounds), 2),
        "first_s": round(first, 1),
    }


def seconds(model: Any, length: int, use_cache: bool) -> float:
    start = time.perf_counter()
    model.generate(list(range(PROMPT)), length - PROMPT, seed=0, use_cache=use_cache)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
