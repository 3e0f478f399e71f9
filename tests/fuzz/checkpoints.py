"""Checkpoints of paused candidates."""

from __future__ import annotations

import json
import math
import os
import random
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from primitives.programs.seeds import load_seed
from tests.fuzz.inputs import folder, replaced, written
from workers.engines.engine import check_kept
from workers.machine import arrays
from workers.spec.outcome import Budget, Hurdle, Outcome, Pause
from workers.spec.task import DataSpec, ModelSpec, Task, TrainingSpec
from workers.training.pausing import trained
from workers.training.run import Run, begun
from workers.training.tempo import Tempo


class Engine:
    """One that trains nothing: its state is how many steps it has made."""

    loads = ()

    def __init__(self) -> None:
        self._state = [np.zeros(2, np.float32), np.zeros((), np.int64)]

    def train(self, windows: Any) -> float:
        self._state[1] = self._state[1] + len(windows)
        return 2.0

    def score(self, windows: Any) -> float:
        return 2.5

    def kept(self) -> list[Any]:
        return self._state

    def restore(self, kept: list[Any]) -> None:
        check_kept(self._state, kept)
        self._state = list(kept)


class Begun(Run):
    """A run with that engine."""

    def start(self, began: float) -> None:
        self.engine, self.tempo = Engine(), Tempo(self.budget, began)
        self.rng = np.random.default_rng([self.seed, 1])


BUDGETS = (
    Budget("steps", 12, (Hurdle(3), Hurdle(7)), points=(5,)),
    Budget("seconds", 0.0003, (Hurdle(0.0001), Hurdle(0.0002))),
)


@cache
def _begun(budget: Budget) -> Run:
    task = Task(
        data=DataSpec(max_documents=40),
        model=ModelSpec(d_model=16, layers=1, sequence_length=16),
        training=TrainingSpec(batch_size=4, eval_batches=2),
    )
    found = begun(load_seed("transformer"), task, budget, 5)
    assert isinstance(found, Run)
    return found


def _stage(budget: Budget, hurdle: int | None, limit_mb: int | None = None) -> Outcome:
    """What a candidate comes to that goes on from the checkpoint that is there."""
    sound, began = _begun(budget), time.perf_counter()
    run = Begun(sound.graph, sound.cost, sound.task, budget, 5, sound.tokens)
    run.pause = Pause(str(_place() / "7.npz"), hurdle, limit_mb)
    with replaced(os, "fsync", lambda file: None):  # a disk is waited for far longer
        status, reason = trained(run, began)
    return run.outcome(status, reason, time.perf_counter() - began)


def _place() -> Path:
    place = folder() / "paused"
    place.mkdir(exist_ok=True)
    return place


@cache
def _sound() -> dict[Budget, list[bytes]]:
    """Of each budget, the checkpoints of a run at its two hurdles."""
    made = dict[Budget, list[bytes]]()
    for budget in BUDGETS:
        for hurdle in (0, 1):
            _stage(budget, hurdle)
            made.setdefault(budget, []).append((_place() / "7.npz").read_bytes())
        (_place() / "7.npz").unlink()
    return made


def _note(checkpoint: bytes) -> bytes:
    found = arrays.read_note(written("note.npz", checkpoint))
    return json.dumps(found).encode()


@cache
def _keys() -> dict[bytes, Budget]:
    return {json.loads(_note(files[0]))["key"].encode(): budget
            for budget, files in _sound().items()}  # fmt: skip


def checkpoint_files() -> list[bytes]:
    """Whole files; notes alone; and values that are to stand somewhere in a note."""
    files = [file for each in _sound().values() for file in each]
    values = ("0", "-1", "2.5", "null", "1e999", "NaN", "[]", "[3, 2.5]", "{}", '"a"', "1" * 20)
    places = [f"{place}|{value}".encode() for place, value in enumerate(values)]
    return [*map(_note, files), *files, *places * 3]


def _changed(data: bytes) -> bytes:
    """A sound note with another value in a place of it."""
    place, _, value = data.decode("utf-8", "replace").partition("|")
    rng = random.Random(place)
    note = json.loads(_note(rng.choice([file for each in _sound().values() for file in each])))
    at: Any = note
    while True:
        key = rng.choice(list(at) if isinstance(at, dict) else range(len(at)))
        if not (isinstance(at[key], dict | list) and at[key] and rng.random() < 0.7):
            break
        at = at[key]
    try:
        at[key] = json.loads(value)
    except ValueError:
        at[key] = value
    return json.dumps(note).encode()


def checkpoint(data: bytes) -> str | None:
    """The checkpoint of a candidate and that of its neighbour: a file, or the note of one whose
    arrays are sound. Whatever they are, the candidate goes on or begins anew, and the neighbour's
    goes where room is needed."""
    data = _changed(data) if data[:1].isdigit() else data
    budget = next((each for key, each in _keys().items() if key in data), BUDGETS[0])
    told = []
    for hurdle in (1, None):
        for name in ("7", "8"):
            _write(_place() / f"{name}.npz", data)
        made = _stage(budget, hurdle, limit_mb=0)
        assert made.status == "completed" and made.val_loss is not None
        assert made.steps > 0 and math.isfinite(made.train_seconds + made.setup_seconds)
        assert [steps for steps, _ in made.training][-1] > 0
        told.append(made.reason.partition("trained again from the start, ")[2])
        assert hurdle is None or not list(_place().glob("*.npz"))
    return told[0] or told[1] or None


def _write(path: Path, data: bytes) -> None:
    if data[:1] != b"{":
        path.write_bytes(data)
        return
    kept = {f"array_{number}": each for number, each in enumerate(Engine().kept())}
    np.savez(path, about=np.array(data.decode("utf-8", "replace")), **kept)
