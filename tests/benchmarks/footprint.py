"""What training really takes of memory: python -m tests.benchmarks.footprint BACKEND [NAME]...

Trains each seed program for two steps at up to three sizes, and prints a JSON line for each run:
the peak of memory in MB, and its ratio to `Footprint.total` and to `Footprint.least`. On a CPU that
is resident memory above what the process held before, with what the compiler takes; on a GPU, which
JAX alone tells, what was allocated there. A ratio to `least` under 1 would mean that a program
which trains could be refused. A run that gives no figure says why: it was too large to try, it did
not complete, or its process died. The last lines have the least, median and largest ratios.

Each run has a process of its own, since frameworks keep the memory that they once had, and trains a
tiny program first: what the framework sets up is not the run's, what it compiles for it is.
"""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from pathlib import Path
from statistics import median
from typing import Any

SIZES = ((64, 2, 128, 64), (128, 1, 512, 8), (256, 2, 64, 32))
"""d_model, layers, sequence length, batch."""

LARGEST = 6 * 2**30
"""Bytes of an estimate up to which a run is tried."""


def main(backend: str, *names: str) -> None:
    os.environ["KERAS_BACKEND"] = backend
    import keras  # noqa: F401  # once, for all the processes that are forked from this one

    from primitives.programs.seeds import seed_names
    from workers.training import evaluate  # noqa: F401

    rows = []
    for name in names or seed_names():
        for size in SIZES[: int(os.environ.get("SIZES", len(SIZES)))]:
            row = in_a_process(backend, name, size)
            rows.append(row)
            print(json.dumps(row), flush=True)
    trained = [row for row in rows if row.get("status") == "completed"]
    print(json.dumps({"runs": len(rows), "without a figure": len(rows) - len(trained)}))
    for key in ("of_total", "of_least") if trained else ():
        ratios = [row[key] for row in trained]
        print(json.dumps({"ratio": key, "least": min(ratios), "median": median(ratios),
                          "most": max(ratios), "runs": len(ratios)}))  # fmt: skip


def in_a_process(backend: str, name: str, size: tuple[int, ...]) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            measured(backend, "transformer", 16, 1, 16, 4)
            row = measured(backend, name, *size)
            os.write(writing, json.dumps(row).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        text = file.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if text else {"program": name, "size": size, "died": status}


def task(backend: str, name: str, d_model: int, layers: int, length: int, batch: int) -> Any:
    from tests.reference.seeds import objective_of
    from workers.spec.task import DataSpec, ModelSpec, Task, TrainingSpec

    objective = objective_of(name)
    return Task(
        data=DataSpec(max_documents=40),
        model=ModelSpec(d_model=d_model, layers=layers, sequence_length=length),
        training=TrainingSpec(
            batch_size=batch, eval_batches=1, backend=backend, objective=objective
        ),
    )


def measured(
    backend: str, name: str, d_model: int, layers: int, length: int, batch: int
) -> dict[str, Any]:
    from primitives.programs.seeds import load_seed
    from workers.spec.fit import task_graph
    from workers.spec.footprint import footprint
    from workers.spec.outcome import Budget
    from workers.training.evaluate import evaluate

    chosen = task(backend, name, d_model, layers, length, batch)
    dna = load_seed(name, d_model)
    graph = task_graph(dna, chosen)
    estimate = footprint(graph, chosen, 256)  # type: ignore[arg-type]
    if estimate.total > LARGEST:
        return {"program": name, "length": length, "not tried": f"{estimate.total / 2**30:.1f} GiB"}
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    before = resident("VmRSS")
    outcome = evaluate(dna, chosen, Budget("steps", 2), seed=1)
    gpu = allocated(backend)
    peak = resident("VmHWM") - before if gpu is None else gpu
    return {
        "program": name, "backend": backend, "gpu": gpu is not None,
        "d_model": d_model, "layers": layers,
        "length": length, "batch": batch, "status": outcome.status, "peak_mb": round(peak),
        "total_mb": round(estimate.total / 2**20), "least_mb": round(estimate.least / 2**20),
        "of_total": round(peak * 2**20 / estimate.total, 3),
        "of_least": round(peak * 2**20 / estimate.least, 2),
        "activations": round(estimate.terms[3].bytes / estimate.total, 2),
    }  # fmt: skip


def allocated(backend: str) -> float | None:
    """The most that this process held on a GPU, in MB; None where it has none."""
    if backend != "jax":
        return None
    import jax

    stats = jax.local_devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] / 2**20 if stats else None


def resident(what: str) -> float:
    """A line of this process' status, in MB."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
