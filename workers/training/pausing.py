"""A run that is paused at a hurdle, and goes on later, maybe in another process.

Its checkpoint holds all that the next steps depend on, so that a run in steps, tokens or FLOPs that
was paused gives the numbers of one that was not.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np

from workers.machine import arrays
from workers.spec.outcome import Measurement, Pause
from workers.training.checkpoint import Note
from workers.training.run import Run

MB = 1_000_000

ROOM = 0.9
"""The share of a limit that is left full where the worst files go: not every new file makes one
go."""


def trained(run: Run, began: float) -> tuple[Any, str]:
    """Trains a run from its checkpoint, if it has one, and leaves another where it is paused.
    `began` is when its time limit began to run. Gives how it ended, and why."""
    run.start(began)
    said = "" if run.pause is None else go_on(run, run.pause)
    status, reason = run.train()
    if run.paused and run.pause is not None:
        reason += keep(run, run.pause, began)
    return status, f"{said}{reason}".removesuffix("; ")


def go_on(run: Run, pause: Pause) -> str:
    """Puts a run that has not made a step where its checkpoint is. Gives what is to be said of it:
    why it begins anew though it was paused before; empty for all that is as it should be."""
    before = pause.hurdle is None or pause.hurdle > 0
    try:
        found = arrays.read(Path(pause.file))
        if found is None:
            return "trained again from the start, no checkpoint was there; " if before else ""
        note, rng = _note(run, pause, found[0]), np.random.default_rng()
        note.set_state(rng)
        run.engine.restore(found[1])
    except (arrays.Damaged, OSError, ValueError) as fault:
        return f"trained again from the start, its checkpoint cannot be used ({fault}); "
    run.rng = rng
    run.steps, run.train_seconds = note.steps, note.train_seconds
    run.earlier_s, run.usage = note.seconds, note.usage
    run.curve = [Measurement(*point) for point in note.curve]
    run.losses.restore(note.losses)
    run.hurdles_passed = note.hurdle
    return ""


def _note(run: Run, pause: Pause, found: arrays.Note) -> Note:
    """The note of this run's checkpoint. Raises Damaged."""
    note, hurdles = Note.read(found), run.budget.hurdles
    last = len(hurdles) - 1 if pause.hurdle is None else pause.hurdle
    if note.key != _key(run) or note.hurdle > last:
        raise arrays.Damaged("it is of another run")
    in_seconds = run.budget.unit == "seconds"
    note.check(run.budget, None if in_seconds else run.steps_to(hurdles[note.hurdle].at))
    return note


def keep(run: Run, pause: Pause, began: float) -> str:
    """Leaves the checkpoint of a run that stands at a hurdle, scored. Gives why there is none,
    where the disk takes no more; empty where there is one."""
    file = Path(pause.file)
    note = Note(
        key=_key(run),
        hurdle=run.hurdles_passed,
        val_loss=run.curve[-1].val_loss,
        steps=run.steps,
        train_seconds=run.train_seconds,
        seconds=run.earlier_s + time.perf_counter() - began,
        usage=dict(run.usage),
        curve=tuple(astuple(point) for point in run.curve),
        losses=run.losses.kept(),
        rng=dict(run.rng.bit_generator.state),
    )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        arrays.write(file, note.model_dump(), run.engine.kept())
        if pause.limit_mb is not None:
            drop_worst(file.parent, pause.limit_mb)
    except OSError as fault:
        return f", and its checkpoint could not be kept ({fault.strerror or fault})"
    return ""


def drop_worst(folder: Path, limit_mb: int) -> None:
    """Where the checkpoints in a folder take more than `limit_mb`, removes those that came least
    far, of them those with the highest loss first, until ROOM of it is left full."""
    sizes = {}
    for file in folder.glob("*.npz"):
        with suppress(FileNotFoundError):  # another worker may remove some, too
            sizes[file] = file.stat().st_size
    total = sum(sizes.values())
    if total <= limit_mb * MB:
        return
    for file in sorted(sizes, key=_standing, reverse=True):
        file.unlink(missing_ok=True)
        total -= sizes[file]
        if total <= ROOM * limit_mb * MB:
            return


def _standing(file: Path) -> tuple[int, float]:
    """The best is the lowest; what cannot be read is the worst."""
    try:
        found = arrays.read_note(file)
        note = None if found is None else Note.read(found)
    except arrays.Damaged:
        note = None
    return (1, 0.0) if note is None else (-note.hurdle, note.val_loss)


def _key(run: Run) -> str:
    """What a checkpoint and a run have to agree in."""
    budget: dict[str, Any] = {
        "unit": run.budget.unit, "amount": run.budget.amount, "points": run.budget.points,
        "hurdles": [hurdle.at for hurdle in run.budget.hurdles],
    }  # fmt: skip
    said = [run.graph.hash, run.settled.model_dump_json(), run.seed, budget]
    return hashlib.blake2b(json.dumps(said).encode(), digest_size=16).hexdigest()
