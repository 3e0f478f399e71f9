"""What test workers run instead of training. A job's `dna` is a command with arguments."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from workers.pool.worker import Setup
from workers.spec.outcome import Compiled, Job, Outcome
from workers.spec.task import Task
from workers.training.evaluate import run_job

LEAKED: list[bytes] = []


def warm_up(setup: Setup) -> None:
    """Nothing to warm."""


def warm_up_raises(setup: Setup) -> None:
    raise RuntimeError("no such device")


def warm_up_dies(setup: Setup) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def warm_up_hangs(setup: Setup) -> None:
    time.sleep(1000)


def warm_up_hangs_once(setup: Setup) -> None:
    """The first worker that starts hangs."""
    mark = Path(os.environ["PRIMEVO_CACHE"]) / "hung"
    if not mark.exists():
        mark.touch()
        time.sleep(1000)


def obey(job: Job, task: Task) -> Outcome:
    """Does what the job says, and ends with the worker's process id in `reason` if it can."""
    command, *arguments = job.dna.split() or ["ok"]
    if command == "sleep":
        time.sleep(float(arguments[0]))
    elif command == "leak":
        LEAKED.append(b"x" * (int(arguments[0]) << 20))
    elif command == "hang":  # in native code, holding the interpreter's lock
        ctypes.PyDLL(None).sleep(1000)
    elif command == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif command == "kill_once":
        if not Path(arguments[0]).exists():
            Path(arguments[0]).touch()
            os.kill(os.getpid(), signal.SIGKILL)
    elif command == "exit":
        sys.exit(3)
    elif command == "fault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif command == "raise":
        raise ValueError("weights are " + "\n".join(arguments))
    return Outcome("completed", reason=str(os.getpid()), val_loss=float(job.seed))


def compile_job(job: Job, task: Task) -> Compiled | Outcome:
    """Obeys the first of three commands, which semicolons divide, and says who it was."""
    first, _, _ = job.dna.partition(";")
    if first.strip() == "invalid":
        return Outcome("invalid", "no program")
    obey(replace(job, dna=first), task)
    return Compiled(str(os.getpid()).encode(), seconds=0.25)


def train_compiled(
    job: Job, task: Task, compiled: Compiled, device: AbstractContextManager[None]
) -> Outcome:
    """The second command is obeyed before the device is taken, the third one on it. In the reason
    are the two processes, and from when to when the device was used."""
    _, load, work = job.dna.split(";")
    obey(replace(job, dna=load), task)
    with device:
        began = time.monotonic()
        outcome = obey(replace(job, dna=work), task)
        used = f"{began} {time.monotonic()}"
    return replace(outcome, reason=f"{compiled.steps.decode()} {os.getpid()} {used}")


def train(job: Job, task: Task) -> Outcome:
    """What the product runs, with the framework's thread counts as the reason."""
    import tensorflow as tf

    threads = tf.config.threading
    inside = threads.get_intra_op_parallelism_threads(), threads.get_inter_op_parallelism_threads()
    return replace(run_job(job, task), reason=f"{inside} {os.environ['OMP_NUM_THREADS']}")


def where(job: Job, task: Task) -> Outcome:
    """Where the modules lie that the job names, as far as this process has imported them."""
    places = [sys.modules[name].__file__ for name in job.dna.split() if name in sys.modules]
    return Outcome("completed", reason=json.dumps(places))
