"""What routed calls cost: python -m tests.benchmarks.experts [--only NAME]

Prints one JSON object. Every figure is a ratio of medians of training steps (forward, backward,
update) that take turns in one process, on one block of d_model 128 in a model of 256 tokens'
vocabulary, over 4,096 tokens a step, without XLA. Blocks have the routed feed-forward alone, no
attention.

- dispatch_over_dense_equal_flops: top-2 of 8 squared-ReLU experts of 2 d_model with buffers of
  capacity factor 1 against a dense feed-forward of 4 d_model, whose active FLOPs are equal;
  `dropless_over_dense_equal_flops` is the same with nothing dropped.
- masked_over_dispatch: every expert on every token against ours, 32 experts of d_model, top 2.
- peer_growth: 1,048,576 single-neuron experts over 65,536 (4 heads, 8 entries each).
- peer_over_dense: PEER of 65,536 experts against the dense feed-forward of as many active neurons.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from primitives.graph.build import Graph, build
from primitives.language.text import parse
from workers.machine.backends import configure
from workers.machine.devices import Layout
from workers.spec.task import ModelSpec, OptimizerSpec, Task, TrainingSpec

BATCH, LENGTH, WIDTH = 16, 256, 128
STEPS, ROUNDS = 3, 7

DENSE = """\
dims d0=8 d1={hidden}
constants c0=0.0
main(x, y):
  wide = CONV 1X1(x) dim=d1
  rectified = MAX(wide) constant=c0
  active = SQUARE(rectified)
  narrow = CONV 1X1(active) dim=d0
  out = ADD(x, narrow)
"""
MIXTURE = """\
dims d0=8 d1={hidden}
constants c0=0.0
counts n0={experts} n1=2
main(x, y):
  scores = SCORE(x) count=n0
  best = TOP_K(scores) count=n1
  exponential = EXP(best)
  total = RED SUM(exponential)
  gates = DIVIDE(exponential, total)
  fed = expert(x, gates) branch=routed
  out = ADD(x, fed)
expert(x, y):
  wide = CONV 1X1(x) dim=d1
  rectified = MAX(wide) constant=c0
  active = SQUARE(rectified)
  out = CONV 1X1(active) dim=d0
"""
PEER = """\
dims d0=8 d1=2
constants c0=0.0
counts n0={rows} n1=8 n2=1
main(x, y):
  gates = retrieve(x) branch=4
  fed = expert(x, gates) branch=routed
  out = ADD(x, fed)
retrieve(x, y):
  query_1 = CONV 1X1(x) dim=d1
  query_2 = CONV 1X1(x) dim=d1
  scores_1 = SCORE(query_1) count=n0
  scores_2 = SCORE(query_2) count=n0
  best_1 = TOP_K(scores_1) count=n1
  best_2 = TOP_K(scores_2) count=n1
  pairs = PAIR(best_1, best_2)
  best = TOP_K(pairs) count=n1
  exponential = EXP(best)
  total = RED SUM(exponential)
  out = DIVIDE(exponential, total)
expert(x, y):
  hidden = SCORE(x) count=n2
  rectified = MAX(hidden) constant=c0
  active = SQUARE(rectified)
  out = CONV 1X1(active) dim=d0
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=MEASURES)
    only = parser.parse_args().only
    configure("tensorflow", Layout(os.cpu_count() or 1, os.cpu_count() or 1, 0.0), None)
    result: dict[str, Any] = {}
    for name, measure in MEASURES.items():
        if only in (None, name):
            result |= measure()
            print(result, file=sys.stderr)
    print(json.dumps(result))


def dispatch() -> dict[str, float]:
    dense = DENSE.format(hidden=32)
    mixture = MIXTURE.format(experts=8, hidden=16)
    base, ours, dropless = compared(
        engine(dense), engine(mixture, capacity_factor=1.0), engine(mixture)
    )
    return {
        "dispatch_over_dense_equal_flops": ratio(ours, base),
        "dropless_over_dense_equal_flops": ratio(dropless, base),
        "dense_ms": milliseconds(base),
    }


def masked() -> dict[str, float]:
    mixture = MIXTURE.format(experts=32, hidden=8)
    every, ours, dropless = compared(
        engine(mixture, routing="every"), engine(mixture, capacity_factor=1.0), engine(mixture)
    )
    return {
        "masked_over_dispatch": ratio(every, ours),
        "masked_over_dropless": ratio(every, dropless),
        "masked_ms": milliseconds(every),
    }


def growth() -> dict[str, float]:
    large, small = compared(engine(PEER.format(rows=1024)), engine(PEER.format(rows=256)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "peer_growth": ratio(large, small),
        "peer_1048576_ms": milliseconds(large),
        "peer_65536_ms": milliseconds(small),
        "peak_memory_gb": round(peak / 1e6, 2),
    }


def against_dense() -> dict[str, float]:
    """4 heads of 8 entries are 32 active neurons, 2 eighths of the width."""
    peer, dense = compared(engine(PEER.format(rows=256)), engine(DENSE.format(hidden=2)))
    return {"peer_over_dense": ratio(peer, dense), "peer_dense_ms": milliseconds(dense)}


MEASURES: dict[str, Callable[[], dict[str, float]]] = {
    "dispatch": dispatch, "masked": masked, "growth": growth, "against_dense": against_dense,
}  # fmt: skip


def engine(text: str, **training: Any) -> Any:
    from workers.engines.engine import make_engine
    from workers.model.model import initial_model, model_shape

    task = Task(
        model=ModelSpec(d_model=WIDTH, layers=1, sequence_length=LENGTH),
        optimizer=OptimizerSpec(clip_norm=1.0),
        training=TrainingSpec(batch_size=BATCH, jit="off", **training),
    )
    graph = build(parse(text))
    assert isinstance(graph, Graph), graph
    return make_engine(graph, initial_model(model_shape(graph, task.model, 256), seed=0), task)


def compared(*engines: Any) -> list[list[float]]:
    """Seconds a step of each, round by round, in turns."""
    shape = (STEPS, BATCH, LENGTH + 1)
    times: list[list[float]] = [[] for _ in engines]
    for number in range(ROUNDS + 1):
        windows = np.random.default_rng(number).integers(0, 256, shape)
        for own, each in zip(times, engines, strict=True):
            began = time.perf_counter()
            each.train(windows)
            own.append((time.perf_counter() - began) / STEPS)
    return [own[1:] for own in times]


def ratio(above: list[float], below: list[float]) -> float:
    return round(statistics.median(above) / statistics.median(below), 3)


def milliseconds(times: list[float]) -> float:
    return round(1000 * statistics.median(times), 2)


if __name__ == "__main__":
    main()
