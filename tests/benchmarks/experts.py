"""What routed calls cost: python -m tests.benchmarks.experts [--device gpu] [--only NAME]
[--backend jax] [--batch N] [--clock cpu] [--variant counted masked]

Prints one JSON object. Every figure is a ratio of medians of training steps (forward, backward,
update) that take turns in one process, on one block in a model of 256 tokens' vocabulary: of
d_model 128, over 16 sequences of 256 tokens a step, on TensorFlow without XLA; with `--device gpu`
of d_model 512, over 32 sequences of 512 tokens, on JAX. `--clock cpu` counts the process' CPU
seconds, which other processes on the machine change less. Blocks have the routed feed-forward
alone, no attention, where nothing else is said.

- dispatch_over_dense_equal_flops: top-2 of 8 squared-ReLU experts of 2 d_model with buffers of
  capacity factor 1 against a dense feed-forward of 4 d_model, whose active FLOPs are equal;
  `dropless_over_dense_equal_flops` is the same with nothing dropped. On a GPU also of 64 and 256
  experts: `dispatch_64_...`, `dispatch_256_...`.
- masked_over_dispatch: every expert on every token against ours, 32 experts of d_model, top 2.
- remoe_over_dense_equal_flops: 8 experts of 2 d_model behind rectified gates, of which about a
  quarter is open (`remoe_open`), against the dense feed-forward. On a GPU sizes are fixed: there it
  has buffers of capacity factor 1.25.
- depths_over_block: a whole block, with attention, of which half of the tokens pass by, over the
  block that none passes by. On a GPU with places for 1.25 times that half.
- peer_growth: 1,048,576 single-neuron experts over 65,536 (4 heads, on a GPU 8, of 8 entries).
- peer_over_dense: PEER of 65,536 experts against the dense feed-forward of as many active neurons.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from primitives.graph.build import Graph, build
from primitives.language.text import parse, render
from primitives.programs.seeds import load_seed
from workers.machine.backends import configure
from workers.machine.devices import Layout
from workers.spec.task import ModelSpec, OptimizerSpec, Task, TrainingSpec


@dataclass(frozen=True, slots=True)
class Setting:
    """Sizes, the backend, and how often each engine runs: `rounds` of `steps` steps, after `warm`
    rounds that do not count."""

    batch: int = 16
    length: int = 256
    width: int = 128
    backend: str = "tensorflow"
    precision: str = "float32"
    steps: int = 3
    rounds: int = 7
    warm: int = 1
    heads: int = 4
    capacity: float | None = None
    clock: Callable[[], float] = time.perf_counter

    @property
    def neurons(self) -> int:
        """Active neurons of PEER in eighths of the width."""
        return self.heads * 8 * 8 // self.width


CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}

CPU = Setting()
GPU = Setting(
    32, 512, 512, "jax", steps=32, rounds=5, warm=1, heads=8, capacity=1.25
)  # fmt: skip

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
RECTIFIED = """\
dims d0=8 d1=16
constants c0=0.0 c1=1e-08
counts n0=8 n1=2
main(x, y):
  scores = SCORE(x) count=n0
  biased = SHIFT(scores)
  open = MAX(biased) constant=c0
  gates = SPARSITY_LOSS(open) constant=c1 count=n1
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
  gates = retrieve(x) branch={heads}
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
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16"), default="float32")
    parser.add_argument("--backend", choices=("tensorflow", "jax"))
    parser.add_argument("--batch", type=int)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--variant", choices=("counted", "masked"), nargs="*", default=())
    chosen = parser.parse_args()
    setting = replace(GPU if chosen.device == "gpu" else CPU, precision=chosen.precision)
    backend, batch = chosen.backend or setting.backend, chosen.batch or setting.batch
    setting = replace(setting, backend=backend, batch=batch, clock=CLOCKS[chosen.clock])
    cpus = os.cpu_count() or 1
    configure(setting.backend, Layout(cpus, cpus, float(chosen.device == "gpu")), None)
    vary(chosen.variant)
    result: dict[str, Any] = {"device": device(), "precision": setting.precision}
    result |= {"variant": chosen.variant} if chosen.variant else {}
    for name, measure in MEASURES.items():
        if chosen.only in (None, name):
            result |= measure(setting)
            print(result, file=sys.stderr)
            gc.collect()
    print(json.dumps(result))


def vary(names: Sequence[str]) -> None:
    """Has routing go other ways; Keras' backend is chosen before this imports it."""
    from primitives.kernels import routing
    from tests.benchmarks.dispatch import VARIANTS

    for name in names:
        setattr(routing, *VARIANTS[name])


def device() -> str:
    """What Keras' backend computes on."""
    import keras

    return ", ".join(keras.distribution.list_devices())


def dispatch(setting: Setting) -> dict[str, float]:
    result: dict[str, float] = {}
    for experts in (8,) if setting.backend != "jax" else (8, 64, 256):
        dense, mixture = DENSE.format(hidden=32), MIXTURE.format(experts=experts, hidden=16)
        base, ours, dropless = compared(
            setting,
            engine(setting, dense),
            engine(setting, mixture, capacity_factor=1.0),
            engine(setting, mixture),
        )
        name = "" if experts == 8 else f"{experts}_"
        result |= {
            f"dispatch_{name}over_dense_equal_flops": ratio(ours, base),
            f"dropless_{name}over_dense_equal_flops": ratio(dropless, base),
            "dense_ms": milliseconds(base),
        }
        gc.collect()
    return result


def masked(setting: Setting) -> dict[str, float]:
    mixture = MIXTURE.format(experts=32, hidden=8)
    every, ours, dropless = compared(
        setting,
        engine(setting, mixture, routing="every"),
        engine(setting, mixture, capacity_factor=1.0),
        engine(setting, mixture),
    )
    return {
        "masked_over_dispatch": ratio(every, ours),
        "masked_over_dropless": ratio(every, dropless),
        "masked_ms": milliseconds(every),
    }


def rectified(setting: Setting) -> dict[str, float]:
    """The bias of the scores, whose deviation is that of token embeddings and positions, leaves a
    quarter of a normal distribution above 0."""
    bias = -0.6745 * (2 / setting.width) ** 0.5
    ours = engine(setting, RECTIFIED, bias, capacity_factor=setting.capacity)
    every = engine(setting, RECTIFIED, bias, routing="every")
    dense = engine(setting, DENSE.format(hidden=32))
    base, rows, all_rows = compared(setting, dense, ours, every)
    ours.score(windows_of(setting, 1, 0))
    ((load, *_),) = ours.loads
    return {
        "remoe_over_dense_equal_flops": ratio(rows, base),
        "remoe_every_over_dense": ratio(all_rows, base),
        "remoe_open": round(float(load.sum()) / (8 * setting.batch * setting.length), 3),
    }


def depths(setting: Setting) -> dict[str, float]:
    """Thresholds fall in training: after 36 steps about two thirds of the tokens are open, after 51
    about half."""
    half = load_seed("mixture_of_depths")
    half = replace(half, constants=(*half.constants[:3], 0.5), every=1)
    passing = engine(setting, render(half), capacity_factor=setting.capacity)
    warm = replace(setting, warm=max(2, 36 // setting.steps))
    base, ours = compared(warm, engine(setting, render(load_seed("transformer"))), passing)
    return {"depths_over_block": ratio(ours, base), "block_ms": milliseconds(base)}


def growth(setting: Setting) -> dict[str, float]:
    large, small = compared(setting, *(engine(setting, peer(setting, n)) for n in (1024, 256)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "peer_growth": ratio(large, small),
        "peer_1048576_ms": milliseconds(large),
        "peer_65536_ms": milliseconds(small),
        "peak_memory_gb": round(peak / 1e6, 2),
    }


def against_dense(setting: Setting) -> dict[str, float]:
    dense = DENSE.format(hidden=setting.neurons)
    ours, base = compared(setting, engine(setting, peer(setting, 256)), engine(setting, dense))
    return {"peer_over_dense": ratio(ours, base), "peer_dense_ms": milliseconds(base)}


MEASURES: dict[str, Callable[[Setting], dict[str, float]]] = {
    "dispatch": dispatch, "masked": masked, "remoe": rectified, "depths": depths, "growth": growth,
    "against_dense": against_dense,
}  # fmt: skip


def peer(setting: Setting, rows: int) -> str:
    return PEER.format(rows=rows, heads=setting.heads)


def engine(setting: Setting, text: str, bias: float | None = None, **training: Any) -> Any:
    """An engine for a program; `bias` is the start value of its scores' offsets."""
    from workers.engines.engine import make_engine
    from workers.model.shape import initial_model, model_shape

    task = Task(
        model=ModelSpec(d_model=setting.width, layers=1, sequence_length=setting.length),
        optimizer=OptimizerSpec(clip_norm=1.0),
        training=TrainingSpec(
            batch_size=setting.batch, jit="off", backend=setting.backend,
            precision=setting.precision, **training,
        ),
    )  # fmt: skip
    graph = build(parse(text))
    assert isinstance(graph, Graph), graph
    shape = model_shape(graph, task.model, 256)
    values = initial_model(shape, seed=0)
    if bias is not None:
        place = next(i for i, name in enumerate(shape.names) if name.endswith("biased_shift"))
        values[place] = np.full_like(values[place], bias)
    return make_engine(graph, values, task)


def windows_of(setting: Setting, steps: int, seed: int) -> Any:
    shape = (steps, setting.batch, setting.length + 1)
    return np.random.default_rng(seed).integers(0, 256, shape)


def compared(setting: Setting, *engines: Any) -> list[list[float]]:
    """Seconds a step of each, round by round, in turns."""
    times: list[list[float]] = [[] for _ in engines]
    for number in range(setting.warm + setting.rounds):
        windows = windows_of(setting, setting.steps, number)
        for own, each in zip(times, engines, strict=True):
            began = setting.clock()
            each.train(windows)
            own.append((setting.clock() - began) / setting.steps)
    return [own[setting.warm :] for own in times]


def ratio(above: list[float], below: list[float]) -> float:
    return round(statistics.median(above) / statistics.median(below), 3)


def milliseconds(times: list[float]) -> float:
    return round(1000 * statistics.median(times), 2)


if __name__ == "__main__":
    main()
