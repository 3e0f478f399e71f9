"""What trains a candidate: the contract that each backend's engine keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from primitives.graph.build import Graph
from primitives.lowering.layer import Array
from workers.machine.backends import use_backend
from workers.spec.task import Task

Windows = npt.NDArray[np.integer[Any]]

Loads = list[tuple[Array, float, Array]]
"""For each routed call of the model, layer by layer: how many tokens each expert got, and the share
of entries that a full buffer would have dropped."""


class Engine(Protocol):
    """One candidate in training.

    The class itself, named in its backend's row, is called as Engine(graph, values, task, seed):
    a program's canonical graph, start values of the model's weights in its order
    (`model.initial_model`), a task (`compilation.settled` has made its choices; an
    `auto` that is left means off, or float32), and a seed from which all noise follows.

    **Time.** Making an engine compiles all that it will run. `train` and `score` return when the
    device is done, so that their wall time is device time, and the first call takes no longer than
    the others: a budget in seconds counts nothing else.

    **Reproducibility.** The same arguments and the same windows, in whatever calls they come, give
    the same weights and numbers on the same machine. `score` changes nothing but `loads`.

    **Ownership.** An engine owns its weights and the memory of the device that they lie in, and
    gives it back when it is no longer referred to. It changes no argument: `values` may be used
    again. Arrays that it returns are the caller's.

    **Threads.** One thread uses an engine, and a process one engine at a time.

    **Errors.** A loss that is not finite is returned, not raised. What the backend raises when
    memory runs out goes through (`evaluate` knows it).

    Windows are token ids [number, batch, length], of the task's batch size and of the length that
    its objective asks for (`fit.window_length`); their number is free, and at least 1.
    """

    loads: Loads
    """Of the last `score`; empty before."""

    def train(self, windows: Windows) -> float:
        """Takes one optimiser step for each of windows [steps, batch, length]. Gives the mean of
        the steps' losses, in nats a token, auxiliary losses left out."""

    def score(self, windows: Windows) -> float:
        """The mean loss in evaluation mode, in nats a token, over all positions of windows
        [batches, batch, length] that count for the objective; not a number where none does."""

    def calibrate(self, windows: Windows) -> list[Array]:
        """The sums over windows [batches, batch, length] that calibration is computed from, see
        `calibration.Sums`. Compiles at its first call."""

    def weights(self) -> list[Array]:
        """The weights as they stand, float32, in the model's order and shapes."""

    def kept(self) -> list[Array]:
        """All that later steps depend on: weights, the optimiser's arrays, the number of steps."""

    def restore(self, kept: Sequence[Array]) -> None:
        """Goes on from what another engine of the same arguments has kept, to the same numbers. A
        ValueError where that was one of other arguments, as far as shapes and types tell."""


class Ahead(Protocol):
    """What an engine's class has beside, where its backend's row says `ahead`: a candidate is
    compiled in one process and trained in another, which has the same kind of device and the same
    versions. Engine(graph, values, task, seed, compiled) then compiles nothing, and gives the same
    numbers as without `compiled`."""

    @staticmethod
    def compile(graph: Graph, shapes: Sequence[tuple[int, ...]], task: Task) -> bytes:
        """Compiles all that an engine runs. `shapes` are those of the weights, `task` is settled.
        Takes no memory of the device that a model of these sizes would feel."""

    @staticmethod
    def load(data: bytes) -> Any:
        """The argument `compiled`, from those bytes. It may be called while another thread trains,
        and puts no weights on the device."""


def check_kept(own: Sequence[Array], kept: Sequence[Array]) -> None:
    """Raises the ValueError of `Engine.restore`, where `own` is what the engine itself holds."""
    ours, theirs = ([f"{each.dtype} {each.shape}" for each in arrays] for arrays in (own, kept))
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} arrays are asked for, and {len(theirs)} were kept")
    for number, (wanted, found) in enumerate(zip(ours, theirs, strict=True), 1):
        if wanted != found:
            raise ValueError(f"array {number} of {len(ours)} is {found}, and should be {wanted}")


def make_engine(
    graph: Graph, values: Sequence[Array], task: Task, seed: int = 0, compiled: Any = None
) -> Engine:
    """The engine of the task's backend; see `Engine`. RuntimeError where this process runs Keras on
    another one. `compiled` is what `Ahead.load` has given; None compiles here."""
    made = use_backend(task.training.backend).load_engine()
    more = () if compiled is None else (compiled,)
    engine: Engine = made(graph, values, task, seed, *more)
    return engine
