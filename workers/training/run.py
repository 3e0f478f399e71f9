"""One training run: its steps within a budget, its scores, and what it tells at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from primitives.graph.build import Graph, IllTyped
from primitives.language.dna import DNA
from primitives.lowering.cost import Cost, training_passes
from workers.data.tokens import TokenSplits, load_tokens, too_short
from workers.machine import arrays
from workers.machine.backends import BACKENDS, device_name, use_backend
from workers.machine.progress import Tell, silent
from workers.spec.fit import needed_tokens, refused, task_cost, task_graph, window_length
from workers.spec.metrics import measured, of_task
from workers.spec.objective import Objective
from workers.spec.objectives import OBJECTIVES
from workers.spec.outcome import BACKWARD, Budget, Compiled, Hurdle, Measurement, Outcome, Pause
from workers.spec.task import Task
from workers.training.losses import TrainingLosses, longest_call
from workers.training.tempo import Tempo

if TYPE_CHECKING:  # they import Keras
    from primitives.lowering.layer import Array
    from workers.engines.engine import Ahead
    from workers.model.shape import ModelShape
    from workers.training.specialties import Specialty

CALL_SECONDS = 0.5
"""What one call of the engine should take at most under a budget in seconds: the overshoot."""

MAX_CALL_STEPS = 256


def begun(dna: DNA, task: Task, budget: Budget, seed: int) -> Run | Outcome:
    """A run before its first step, or why there is none."""
    use_backend(task.training.backend)
    graph = task_graph(dna, task)
    if isinstance(graph, IllTyped):
        return Outcome("invalid", str(graph))
    if reason := refused(graph, task):
        return Outcome("invalid", reason)
    tokens = load_tokens(task.data)
    if reason := too_short(tokens, needed_tokens(task)):
        return Outcome("invalid", reason)
    cost = task_cost(graph, task, tokens.vocabulary)
    return Run(graph, cost, task, budget, seed, tokens)


@dataclass
class Run:
    """One training run under way."""

    graph: Graph
    cost: Cost
    task: Task
    budget: Budget
    seed: int
    tokens: TokenSplits
    tell: Tell = silent
    values: Sequence[Array] = ()
    steps_ready: Any = None
    engine: Any = None
    steps: int = 0
    train_seconds: float = 0.0
    test_loss: float | None = None
    tested: Mapping[str, float] = field(default_factory=dict)
    hurdles_passed: int = 0
    curve: list[Measurement] = field(default_factory=list)
    losses: TrainingLosses = field(default_factory=TrainingLosses)
    usage: Mapping[str, float] = field(default_factory=dict)
    experts: tuple[Specialty, ...] = ()
    precision: str = "float32"
    pause: Pause | None = None
    paused: bool = False
    earlier_s: float = 0.0
    tempo: Tempo = field(init=False)
    rng: np.random.Generator = field(init=False)

    def compiled(self) -> bytes:
        """The run's steps, for another process; see `engine.Ahead`."""
        ahead: type[Ahead] = BACKENDS[self.task.training.backend].load_engine()
        return ahead.compile(self.graph, self._shape.shapes, self.settled)

    def get_ready(self, compiled: Compiled | None) -> None:
        """Does what can be done without the device."""
        from workers.model.shape import initial_model

        self.values = initial_model(self._shape, self.seed)
        if compiled is not None:
            ahead: type[Ahead] = BACKENDS[self.task.training.backend].load_engine()
            self.steps_ready = ahead.load(compiled.steps)

    def upcycle(self, path: Path) -> str:
        """Takes over the weights of a dense model; why that cannot be, or an empty text."""
        from workers.model.shape import layer_graphs
        from workers.model.upcycling import NotUpcyclable, upcycled

        try:
            with np.load(path, allow_pickle=False) as kept:
                dense = {name: kept[name] for name in kept.files if kept[name].dtype.kind == "f"}
        except OSError as fault:
            return f"cannot read the weights {path}: {fault.strerror or fault}"
        except Exception as fault:  # of damaged files, numpy, zipfile and zlib make any kind
            return f"cannot read the weights {path}: damaged ({type(fault).__name__}: {fault})"
        graphs = layer_graphs(self.graph, self.task.model)
        try:
            self.values = upcycled(graphs, self._shape, self.values, dense)
        except NotUpcyclable as fault:
            return str(fault)
        return ""

    @cached_property
    def _shape(self) -> ModelShape:
        from workers.model.shape import embedding_rows, model_shape

        rows = embedding_rows(self.task, self.tokens.vocabulary)
        return model_shape(self.graph, self.task.model, rows)

    @cached_property
    def settled(self) -> Task:
        from workers.engines.compilation import settled

        return settled(self.task, self.budget, self._flops(), self._tokens(1))

    def start(self, began: float) -> None:
        """Takes the device, before the first step. `began` is when its time limit began to run."""
        from workers.engines.engine import make_engine

        of_a_step = None if self.budget.unit == "seconds" else self._of_a_step()
        self.tempo = Tempo(self.budget, began, longest_call(self.budget.amount, of_a_step))
        self.precision = self.settled.training.precision
        settled, ready = self.settled, self.steps_ready
        self.engine = make_engine(self.graph, self.values, settled, self.seed, ready)
        self.values, self.steps_ready = (), None
        self.rng = np.random.default_rng([self.seed, 1])

    def train(self) -> tuple[Any, str]:
        """Runs from where it stands to the end of the budget, to a hurdle that it does not pass or
        where it is paused, to a bad loss, or until its pace is seen to be too slow."""
        places = list(self._stretches())
        if self.curve:  # it was paused at the hurdle of its last score
            if self._pauses():
                return self._paused()
            self.hurdles_passed += 1
        for limit, hurdle in places[len(self.curve) :]:
            while steps := self._next_steps(limit):
                for windows in self.tempo.calls(self._windows(self.rng, steps)):
                    loss = self._call(windows)
                    if not math.isfinite(loss):
                        return "diverged", f"training loss is {loss} by step {self.steps}"
                    if objection := self.tempo.objection(self._seconds_left()):
                        return self._measure() or objection
            if diverged := self._measure():
                return diverged
            if hurdle is not None:
                if self._pauses():
                    return self._paused()
                if hurdle.threshold is not None and self.curve[-1].val_loss > hurdle.threshold:
                    break
                self.hurdles_passed += 1
        return "completed", ""

    def _pauses(self) -> bool:
        """Whether the run, at a hurdle, is paused there."""
        return self.pause is not None and self.pause.hurdle == self.hurdles_passed

    def _paused(self) -> tuple[Any, str]:
        self.paused = True
        place = f"hurdle {self.hurdles_passed + 1} of {len(self.budget.hurdles)}"
        return "completed", f"paused at {place}"

    def _call(self, windows: Any) -> float:
        """Trains for one step on each of the windows; their mean loss."""
        started = time.perf_counter()
        loss: float = self.engine.train(windows)
        seconds = time.perf_counter() - started
        self.train_seconds += seconds
        self.steps += len(windows)
        self.losses.add(len(windows), loss)
        self.tempo.took(len(windows), seconds)
        self.tell(self._used(), self.budget.amount)
        return loss

    def _measure(self) -> tuple[Any, str] | None:
        """Adds a point to the curve; how the run ends where the loss there is not finite."""
        from workers.training.usage import usage

        loss = self.score("validation")
        if not math.isfinite(loss):
            return "diverged", f"validation loss is {loss} at step {self.steps}"
        self.usage = usage(self.engine.loads)
        self.curve.append(Measurement(self.steps, self._tokens(), self.train_seconds, loss))
        return None

    def _seconds_left(self) -> float:
        """How long training to where it ends or is paused still takes at the run's pace."""
        last = self.budget.amount
        if self.pause is not None and self.pause.hurdle is not None:
            last = self.budget.hurdles[self.pause.hurdle].at
        if self.budget.unit == "seconds":
            return last - self.train_seconds
        return (self.steps_to(last) - self.steps) * (self.tempo.pace or 0.0)

    def _stretches(self) -> Iterator[tuple[float, Hurdle | None]]:
        """Each place at which the run is scored, with the hurdle that is there."""
        hurdles = {hurdle.at: hurdle for hurdle in self.budget.hurdles}
        for place in sorted({*hurdles, *self.budget.points}):
            yield place, hurdles.get(place)
        yield self.budget.amount, None

    def _next_steps(self, limit: float) -> int:
        """Steps for the next call of the engine; 0 once `limit` of the budget's unit is used up."""
        unit = self.budget.unit
        if unit == "seconds":
            left = limit - self.train_seconds
            if left <= 0:
                return 0
            pace = self.train_seconds / self.steps if self.steps else math.inf
            return max(1, min(int(min(left, CALL_SECONDS) / pace), MAX_CALL_STEPS))
        return min(self.steps_to(limit) - self.steps, MAX_CALL_STEPS)

    def steps_to(self, place: float) -> int:
        """Steps from the start to a place of a budget that is not in seconds."""
        return math.ceil(place / self._of_a_step())

    def _used(self) -> float:
        """What training took of the budget so far, in its unit."""
        in_seconds = self.budget.unit == "seconds"
        return self.train_seconds if in_seconds else self.steps * self._of_a_step()

    def _of_a_step(self) -> float:
        """What one step takes of a budget that is not in seconds."""
        return {"steps": 1.0, "tokens": self._tokens(1), "flops": self._flops()}[self.budget.unit]

    def _tokens(self, steps: int | None = None) -> int:
        a_step = self.task.training.batch_size * self.task.model.sequence_length
        return a_step * (self.steps if steps is None else steps)

    def _flops(self) -> int:
        """Training FLOPs of one step."""
        passes = training_passes(self.graph) * BACKWARD
        return passes * self.cost.flops_per_token * self._tokens(1)

    def _windows(self, rng: np.random.Generator, steps: int) -> Any:
        """Windows [steps, batch, length] of the training split, for the objective."""
        shape = (steps, self.task.training.batch_size)
        return self._objective.draw(self.tokens.train, window_length(self.task), shape, rng)

    @property
    def _objective(self) -> Objective:
        return OBJECTIVES[self.task.training.objective]

    def score(self, split: str) -> float:
        """Loss on a split's fixed slice."""
        loss: float = self.engine.score(self._slice(getattr(self.tokens, split)))
        return loss

    def test(self) -> None:
        """Scores on text that no choice has seen: the test split, each task's part of it, how far
        probabilities there can be trusted, and the test split of the task's other text."""
        from workers.engines.calibration import figures

        self.test_loss = self.score("test")
        made = figures(self.engine.calibrate(self._slice(self.tokens.test)))
        self.tested = {f"test_{name}": value for name, value in made.items()}
        for name, width in self.tokens.tasks.items():
            self.tested |= self._tested(self.tokens.of_task(name), width, of_task("test", name))
        if self.task.transfer is not None:
            other = load_tokens(self.task.transfer, like=self.task.data)
            width = other.bytes_per_token["test"]
            self.tested |= self._tested(other.test, width, "transfer_{}")

    def _tested(self, tokens: Any, width: float, name: str) -> dict[str, float]:
        """The scores on a text whose tokens stand for so many bytes; nothing where it is too short
        for a window."""
        if len(tokens) < needed_tokens(self.task):
            return {}
        loss: float = self.engine.score(self._slice(tokens))
        bits = loss / math.log(2) / width
        return {name.format("loss"): loss, name.format("bpb"): bits}

    def look_at_experts(self) -> None:
        """Finds what each expert is for, on the validation slice. Where memory does not suffice for
        that, the run is as good without."""
        from workers.data.spelling import spelling
        from workers.training.choices import choices_of
        from workers.training.specialties import specialties

        if not self.engine.loads:
            return
        windows = self._slice(self.tokens.validation)
        try:
            read, calls = choices_of(self.graph, self.settled, self.engine.weights(), windows)
        except Exception as fault:
            if not out_of_memory(fault):
                raise
            return
        self.experts = specialties(read, calls, spelling(self.task.data, self.tokens))

    def _slice(self, tokens: Any) -> Any:
        """The fixed windows of a split that scores are taken on."""
        training = self.task.training
        shape = (training.eval_batches, training.batch_size)
        return self._objective.fixed(tokens, window_length(self.task), shape)

    def save(self, path: Path) -> str:
        """Keeps the trained weights and the precision that they were trained in, whole or not at
        all. Gives why they are not kept, where the disk takes no more; empty where they are. An
        export then trains once more, so the run is none the worse."""
        weights = dict(zip(self._shape.names, self.engine.weights(), strict=True))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            arrays.replace(path, lambda file: np.savez(file, precision=self.precision, **weights))
        except OSError as fault:
            return f"its weights could not be kept ({fault.strerror or fault})"
        return ""

    def outcome(self, status: Any, reason: str, seconds: float) -> Outcome:
        last = self.curve[-1].val_loss if self.curve else None
        return Outcome(
            status,
            reason,
            val_loss=last,
            val_bpb=self._bits_per_byte(last, "validation"),
            test_loss=self.test_loss,
            test_bpb=self._bits_per_byte(self.test_loss, "test"),
            params=self.cost.parameters,
            active_params=self.cost.active_parameters,
            flops_per_token=self.cost.flops_per_token,
            step_time_s=self.train_seconds / self.steps if self.steps else None,
            steps=self.steps,
            tokens=self._tokens(),
            train_seconds=self.train_seconds,
            setup_seconds=self.earlier_s + seconds - self.train_seconds,
            hurdles_passed=self.hurdles_passed,
            curve=tuple(self.curve),
            training=self.losses.points,
            metrics=measured(self),
            experts=self.experts,
            device=device_name(),
        )

    def _bits_per_byte(self, loss: float | None, split: str) -> float | None:
        if loss is None:
            return None
        return loss / math.log(2) / self.tokens.bytes_per_token[split]


def out_of_memory(fault: Exception) -> bool:
    """Python's own error, TensorFlow's ResourceExhaustedError, or XLA's RESOURCE_EXHAUSTED."""
    name = type(fault).__name__
    return isinstance(fault, MemoryError) or "ResourceExhausted" in name or (
        "RESOURCE_EXHAUSTED" in str(fault)
    )  # fmt: skip
