"""The points of a study's grid, and what training them gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from primitives.graph.build import DISPATCH, Graph
from search.campaign.proposal import final_seed
from search.config.grid import AmountsSpec, Genes, StudyConfig
from search.config.gridfile import tasks
from search.config.places import evenly
from search.config.plugins import versions
from search.config.programfile import checked
from search.config.variant import variant
from search.study.runner import Planned, Runner, Subject
from search.study.setting import Setting
from search.study.study import Runs, completed
from workers.spec.fit import task_cost, vocabulary_of
from workers.spec.metrics import METRICS
from workers.spec.outcome import Budget, Outcome
from workers.spec.task import DataSpec, Task

SIZES = ("d_model", "layers", "sequence_length")


@dataclass(frozen=True, slots=True)
class Point:
    """A program at one place of the grid, which is trained to the largest amount.

    Attributes:
        program: its name in the config.
        genes: what the study sets of its dims, counts and `every`.
        place: the sizes and the text that the grid varies, by name.
        granularity: how many experts a token meets in a routed call, the mean over these: active
            parameters over those of one expert (He 2024, equation 10); None for a dense program.
    """

    program: str
    genes: Genes
    place: Mapping[str, int | str]
    subject: Subject
    setting: Setting
    granularity: float | None

    @property
    def plans(self) -> dict[int, Planned]:
        """Its runs by seed."""
        return {seed: Planned(self.setting, self.subject, seed) for seed in self.setting.seeds}


@dataclass(frozen=True)
class Cell:
    """A point at one amount of training: its runs as they stood there."""

    point: Point
    amount: float
    runs: Runs

    @cached_property
    def losses(self) -> dict[int, float]:
        """Validation loss in bits a byte of each run that has one, by seed."""
        return {
            seed: outcome.val_bpb
            for seed, outcome in completed(self.runs)
            if outcome.val_bpb is not None
        }

    @property
    def mean(self) -> float | None:
        return fmean(self.losses.values()) if self.losses else None

    def of(self, name: str) -> float | None:
        """The mean of a metric over the runs."""
        values = [METRICS[name].of(outcome) for _, outcome in completed(self.runs)]
        known = [value for value in values if value is not None]
        return fmean(known) if known else None

    @property
    def group(self) -> tuple[str, float]:
        """Cells that learned from the same text for the same amount."""
        place = self.point.place
        return f"{place.get('data', '')}/{place.get('sequence_length', '')}", self.amount

    @property
    def title(self) -> str:
        return self.point.subject.title


def points(config: StudyConfig) -> list[Point]:
    """All points of a grid, those of one task one after the other. A program that several points
    share is trained once."""
    seeds = tuple(final_seed(config.seed, index) for index in range(config.seeds))
    plugins, budget = tuple(versions(config.plugins)), _budget(config.budget)
    names = _data_names(config)
    found: list[Point] = []
    for task in tasks(config):
        setting = Setting(task, budget, seeds, plugins)
        place = _place(config, task, names)
        for name, spec in config.programs.items():
            for genes in spec.variants:
                dna = variant(spec.program or name, task.model.d_model, genes)
                graph = checked(dna, name, task)
                title = _title(name, genes, place)
                subject = Subject(title, dna, graph.hash)
                found.append(Point(name, genes, place, subject, setting, granularity(graph)))
    return found


def plan(config: StudyConfig) -> list[dict[str, Any]]:
    """A record for each point, with what it costs; nothing is trained. `task` tells tasks apart."""
    found = []
    for point in points(config):
        task = point.setting.task
        graph = checked(point.subject.dna, point.program, task)
        cost = task_cost(graph, task, vocabulary_of(task))
        row = {
            "cell": point.subject.title, "params": cost.parameters,
            "active_params": cost.active_parameters, "flops_per_token": cost.flops_per_token,
            "granularity": point.granularity, "hash": point.subject.hash,
            "task": task.model_dump_json(),
        }  # fmt: skip
        found.append(row)
    return found


def run(runner: Runner, points: Sequence[Point], amounts: Sequence[float]) -> list[Cell]:
    """Trains what was not trained before; a cell for each point and amount."""
    found = runner.run([plan for point in points for plan in point.plans.values()])
    cells = []
    for point in points:
        whole = {seed: found[plan.key] for seed, plan in point.plans.items()}
        full = point.setting.budget.amount
        for amount in amounts:
            runs = whole if amount == full else _cut(whole, point.setting, amount)
            cells.append(Cell(point, amount, runs))
    return cells


def granularity(graph: Graph) -> float | None:
    """The mean number of gate entries of the graph's routed calls."""
    entries = [
        graph.nodes[node.inputs[1]].type.size
        for node in graph.nodes
        if node.op == DISPATCH and len(node.inputs) == 2
    ]
    return fmean(entries) if entries else None


def _cut(runs: Runs, setting: Setting, amount: float) -> Runs:
    """The runs as they stood at one of the budget's points. Runs that did not complete stay as they
    are."""
    place = setting.budget.points.index(amount)
    return {seed: _as_at(outcome, place) for seed, outcome in runs.items()}


def _as_at(outcome: Outcome, place: int) -> Outcome:
    if outcome.status != "completed" or place >= len(outcome.curve):
        return outcome
    point, last = outcome.curve[place], outcome.val_loss
    share = outcome.val_bpb / last if outcome.val_bpb is not None and last else None
    return replace(
        outcome, val_loss=point.val_loss,
        val_bpb=None if share is None else point.val_loss * share,
        test_loss=None, test_bpb=None, steps=point.steps, tokens=point.tokens,
        train_seconds=point.train_seconds, curve=outcome.curve[: place + 1], metrics={},
    )  # fmt: skip


def _budget(spec: AmountsSpec) -> Budget:
    """The largest amount, scored at every other and at the points on the way."""
    on_the_way = {*evenly(spec.unit, spec.full, spec.points), *spec.amounts}
    return Budget(spec.unit, spec.full, points=tuple(sorted(on_the_way - {spec.full})))


def _place(config: StudyConfig, task: Task, names: Mapping[str, str]) -> dict[str, int | str]:
    """What the grid varies, and its value here."""
    axes = config.grid
    sizes = {
        name: getattr(task.model, name) for name in SIZES if len(getattr(axes, name)) > 1
    }  # fmt: skip
    return sizes | ({"data": names[task.data.model_dump_json()]} if len(axes.data) > 1 else {})


def _data_names(config: StudyConfig) -> dict[str, str]:
    """A short name for each text: its source, and the keys in which the texts differ."""
    dumps = [spec.model_dump(mode="json") for spec in config.grid.data]
    varied = [key for key in DataSpec.model_fields if len({str(one.get(key)) for one in dumps}) > 1]
    found: dict[str, str] = {}
    for spec, dump in zip(config.grid.data, dumps, strict=True):
        parts = [_told(key, dump.get(key)) for key in varied]
        found[spec.model_dump_json()] = " ".join(filter(None, parts)) or spec.source
    return found


def _told(key: str, value: object) -> str:
    if value in (None, [], {}):
        return ""
    if key == "files" and isinstance(value, list):
        return "+".join(Path(str(each)).name for each in value)
    return str(value) if key in ("source", "name", "tokenizer") else f"{key}={value}"


def _title(name: str, genes: Genes, place: Mapping[str, int | str]) -> str:
    """peer n0=32 every=2 d_model=64."""
    return " ".join([name, *(f"{key}={value}" for key, value in {**genes, **place}.items())])
