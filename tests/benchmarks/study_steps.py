"""How long a step of a study's programs takes: python -m tests.benchmarks.study_steps CONFIG
[--set KEY=VALUE ...]

The runs of a study step at different times, and two workers share a processor; so their step times
are for a machine that does nothing else. Here all points of the grid take turns in one process with
one thread: the same number of steps each, round by round. Prints CSV: the cell, the median CPU time
of a step in milliseconds, and its ratio to the first cell's of the same round, the median again.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from search.config.gridfile import load_study
from search.study.grid import Point, points
from workers.machine.backends import configure
from workers.machine.devices import Layout
from workers.spec.fit import task_graph

STEPS, ROUNDS, WARM = 8, 7, 1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    chosen = parser.parse_args()
    found = points(load_study(chosen.config, chosen.overrides))
    configure(found[0].setting.task.training.backend, Layout(1, 1, 0.0), None)
    engines = [engine(point) for point in found]
    times = np.array([[step(*each, number) for each in engines] for number in range(WARM + ROUNDS)])
    times = times[WARM:]
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(("cell", "step_ms", "ratio"))
    for point, own in zip(found, times.T, strict=True):
        ratio = median(own / times[:, 0])
        out.writerow((point.subject.title, f"{1000 * median(own):.2f}", f"{ratio:.3f}"))


def engine(point: Point) -> tuple[Any, Any]:
    """The point's engine, and its task."""
    from workers.engines.engine import make_engine
    from workers.model.shape import initial_model, model_shape

    task = point.setting.task
    task = task.model_copy(update={"training": task.training.model_copy(update={"jit": "off"})})
    graph: Any = task_graph(point.subject.dna, task)
    return make_engine(graph, initial_model(model_shape(graph, task.model, 256), 0), task), task


def step(engine: Any, task: Any, seed: int) -> float:
    """CPU seconds of a step, the mean of STEPS."""
    shape = (STEPS, task.training.batch_size, task.model.sequence_length + 1)
    windows = np.random.default_rng(seed).integers(0, 256, shape)
    began = time.process_time()
    engine.train(windows)
    return (time.process_time() - began) / STEPS


if __name__ == "__main__":
    main()
