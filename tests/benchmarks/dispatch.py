"""What a routed call costs beside its products: python -m tests.benchmarks.dispatch

Prints one JSON object: CPU time, forward and backward, of the parts of a top-2 call of 8 experts
of 2 d_model, over that of a dense feed-forward of 4 d_model, whose active FLOPs are equal. They
take turns in one process, as plain TensorFlow graphs, on 16 sequences of 256 tokens of 128
channels.

- products: the experts on runs that lie ready; router: scores, top 2, softmax; moves: tokens to
  their runs and back, with experts that do nothing; sorting: where each token goes, forward alone.
- whole: all of it. Optimiser and embeddings are left out.

`VARIANTS` are other ways to compute the same, which `tests.benchmarks.experts --variant` times.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from primitives.kernels.routing import top_k
from primitives.kernels.runs import collect_runs, project_runs, to_runs

BATCH, LENGTH, WIDTH, EXPERTS, K = 16, 256, 128, 8, 2
ROUNDS, WARM, STEPS = 12, 2, 3


def counted(ids: Any, n: int) -> tuple[Any, Any]:
    """`routing.queue` by counting instead of sorting."""
    shape = ops.shape(ids)
    expert = ops.cast(ops.reshape(ids, (-1, shape[-2] * shape[-1])), "int32")
    hot = ops.cast(expert[..., None] == ops.arange(n, dtype="int32"), "int32")
    return ops.sum(ops.cumsum(hot, axis=1) * hot, axis=-1) - 1, expert


def masked(x: Any, places: Any) -> Any:
    """`routing._rows` without a copy of x that has a row of zeros."""
    taken = ops.take(x, ops.maximum(places - 1, 0), axis=0)
    return ops.where((places > 0)[:, None], taken, ops.zeros((), taken.dtype))


VARIANTS: dict[str, tuple[str, Callable[..., Any]]] = {
    "counted": ("queue", counted), "masked": ("_rows", masked),
}  # fmt: skip
"""By name, the function of `primitives.kernels.routing` that another one takes the place of."""


def main() -> None:
    times: dict[str, list[float]] = {}
    steps = made()
    for _ in range(ROUNDS):
        for name, step in steps.items():
            began = time.process_time()
            for _ in range(STEPS):
                step()
            times.setdefault(name, []).append(time.process_time() - began)
    medians = {name: statistics.median(own[WARM:]) for name, own in times.items()}
    dense = medians.pop("dense")
    print(json.dumps({name: round(own / dense, 3) for name, own in medians.items()}))


def made() -> dict[str, Callable[[], Any]]:
    """Every part, as a step on its own inputs."""
    x, score = normal(BATCH, LENGTH, WIDTH), normal(WIDTH, EXPERTS)
    up, down = normal(WIDTH, 4 * WIDTH), normal(4 * WIDTH, WIDTH)
    ups, downs = normal(EXPERTS, WIDTH, 2 * WIDTH), normal(EXPERTS, 2 * WIDTH, WIDTH)
    gates, ids = router(x, score)
    slots, route = to_runs(x, ids, EXPERTS, ())
    return {
        "dense": traced(lambda x, up, down: active(x @ up) @ down, x, up, down),
        "products": traced(lambda *given: products(*given, route), slots, ups, downs),
        "router": traced(lambda *given: router(*given)[0], x, score),
        "moves": traced(lambda x, gates: moved(x, gates, ids), x, gates),
        "sorting": traced(lambda ids: to_runs(x[..., :1], ids, EXPERTS, ())[1].order, ids),
        "whole": traced(whole, x, score, ups, downs),
    }


def normal(*shape: int) -> Any:
    values = 0.1 * np.random.default_rng(0).standard_normal(shape)
    return ops.convert_to_tensor(values, "float32")


def active(x: Any) -> Any:
    return ops.square(ops.relu(x))


def router(x: Any, score: Any) -> tuple[Any, Any]:
    best, ids = top_k(x @ score, K)
    return ops.softmax(best), ids


def products(slots: Any, ups: Any, downs: Any, route: Any) -> Any:
    return project_runs(active(project_runs(slots, (ups, route, 1))), (downs, route, 1))


def moved(x: Any, gates: Any, ids: Any) -> Any:
    slots, route = to_runs(x, ids, EXPERTS, ())
    return collect_runs(slots, gates, route, ())


def whole(x: Any, score: Any, ups: Any, downs: Any) -> Any:
    gates, ids = router(x, score)
    slots, route = to_runs(x, ids, EXPERTS, ())
    return collect_runs(products(slots, ups, downs, route), gates, route, ())


def traced(function: Callable[..., Any], *given: Any) -> Callable[[], Any]:
    """The function with its gradient, where it has one, by all that it is given."""
    import tensorflow as tf

    @tf.function(autograph=False)
    def step() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(given)
            value = function(*given)
            total = tf.reduce_sum(tf.square(value))
        return total, [] if value.dtype.is_integer else tape.gradient(total, given)

    return step


if __name__ == "__main__":
    main()
