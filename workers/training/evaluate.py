"""evaluate(dna, task, budget, seed) -> Outcome: train one program under a budget and score it.

Everything ordinary that can go wrong is an outcome: a program without a type, a loss that is not
finite, memory that runs out. Only bugs raise.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

from primitives.errors import ProgramError
from primitives.language.dna import DNA
from primitives.language.text import parse
from workers.machine.progress import Tell, silent
from workers.spec.outcome import Budget, Compiled, Job, Outcome, Pause
from workers.spec.task import Task
from workers.training import pausing
from workers.training.run import begun, out_of_memory

Device = AbstractContextManager[Any]
"""What is entered to have the device to oneself."""


def run_job(
    job: Job, task: Task, compiled: Compiled | None = None, device: Device | None = None
) -> Outcome:
    """A worker's entry: the job's program from its text, evaluated. A worker that trains what
    others have compiled passes both of the optional arguments."""
    try:
        dna = parse(job.dna, source=f"candidate {job.id}")
    except ProgramError as fault:
        return Outcome("invalid", str(fault))
    return evaluate(
        dna, task, job.budget, job.seed, job.test, job.weights, compiled=compiled, device=device,
        start=job.start, pause=job.pause,
    )  # fmt: skip


def compile_job(job: Job, task: Task) -> Compiled | Outcome:
    """The entry of a worker that compiles for others: what `run_job` needs to train the job without
    compiling, or the outcome where that cannot be."""
    start = time.perf_counter()
    try:
        run = begun(parse(job.dna, source=f"candidate {job.id}"), task, job.budget, job.seed)
    except ProgramError as fault:
        return Outcome("invalid", str(fault))
    if isinstance(run, Outcome):
        return run
    try:
        return Compiled(run.compiled(), time.perf_counter() - start)
    except Exception as fault:
        if not out_of_memory(fault):
            raise
        reason = str(fault).splitlines()[0]
        return run.outcome("out_of_memory", reason, time.perf_counter() - start)


def evaluate(
    dna: DNA,
    task: Task,
    budget: Budget,
    seed: int,
    test: bool = False,
    weights: str | None = None,
    compiled: Compiled | None = None,
    device: Device | None = None,
    tell: Tell = silent,
    start: str | None = None,
    pause: Pause | None = None,
) -> Outcome:
    """Trains `dna` for `budget`, scores it on the fixed validation slice at each hurdle, at each
    point of the budget and at the end, and on the test split if `test`. The same seed, task and
    step budget on the same machine give the same numbers. `weights` names an .npz file to keep the
    trained weights in.

    `compiled` is what `compile_job` made of the same program, task and budget. `device` is entered
    for as long as the device is used; the time that entering takes is counted nowhere, and a time
    limit runs from then on. `tell` counts the budget that is used, in its unit. `start` names an
    .npz file of a dense model's weights to begin with, see `workers.model.upcycling`. `pause` says
    where the run is paused: it goes on from its checkpoint, if it has one."""
    began = time.perf_counter()
    run = begun(dna, task, budget, seed)
    if isinstance(run, Outcome):
        return run
    run.tell, run.pause = tell, pause
    try:
        run.get_ready(compiled)
        if start is not None and (reason := run.upcycle(Path(start))):
            return run.outcome("invalid", reason, time.perf_counter() - began)
        asked = time.perf_counter()
        with device or nullcontext():
            taken = time.perf_counter()
            began += taken - asked
            status, reason = pausing.trained(run, began if device is None else taken)
            if status == "completed" and test:
                run.test()
                run.look_at_experts()
            if status == "completed" and weights is not None:
                reason += run.save(Path(weights))
    except Exception as fault:
        if not out_of_memory(fault):
            raise
        status, reason = "out_of_memory", str(fault).splitlines()[0]
    if pause is not None and not run.paused:
        with suppress(OSError):  # it goes with the folder, then
            Path(pause.file).unlink()
    before = compiled.seconds if compiled else 0.0
    return run.outcome(status, reason, before + time.perf_counter() - began)
