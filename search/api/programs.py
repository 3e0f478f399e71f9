"""Programs without a campaign: list, mutate, train and score, export."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import stdev
from typing import TYPE_CHECKING, Any

from primitives.graph.build import IllTyped, build
from primitives.programs.seeds import load_seed, seed_names, seed_text
from search.api.opening import ConfigLike, load_config, load_program
from search.api.program import Program
from search.api.table import Table, frame
from search.config.programfile import headline, spaced
from search.config.schema import CampaignConfig
from search.errors import PrimevoError, UsageError
from search.evolution import mutation
from workers.spec.metrics import METRICS, all_scores
from workers.spec.outcome import Budget, Outcome

if TYPE_CHECKING:
    from pandas import DataFrame

    from search.report.verdict import Interval

Named = Program | str | Path

TRIES = 100
"""Mutations that are drawn before `mutate` gives up."""


def seeds() -> Table:
    """The seed programs: `name`, which `load_program` takes, `hash` at the default width, and
    `about`."""
    return Table(
        {"name": name, "hash": Program(name, load_seed(name)).hash,
         "about": headline(seed_text(name))}
        for name in seed_names()
    )  # fmt: skip


def mutate(program: Named, seed: int = 0, mutations: Mapping[str, float] | None = None) -> Program:
    """A child: the program after one random mutation that leaves it well typed and changes what it
    computes. The same seed gives the same child. `mutations` are weights by name, as in a config's
    `search.mutations`. Raises a PrimevoError where none is found in TRIES tries."""
    parent, rng = load_program(program), Random(seed)
    for name in mutations or ():
        if problem := mutation.MUTATIONS.problem(name):
            raise UsageError(problem)
    for _ in range(TRIES):
        child, name = mutation.mutate(parent.dna, rng, mutations)
        graph = build(child)
        if not isinstance(graph, IllTyped) and graph.hash != parent.hash:
            return Program(f"{parent.name}+{name}", child)
    raise PrimevoError(f"no mutation of {parent.name} type-checked in {TRIES} tries")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Runs of one program under the full budget of a config, by seed."""

    program: Program
    runs: Mapping[int, Outcome]

    def values(self, metric: str = "val_loss") -> tuple[float, ...]:
        """A metric of each completed run: val_loss, val_bpb, test_loss, test_bpb, step_time_s, or
        another of those that `table` has."""
        done = [all_scores(run) for run in self.runs.values() if run.status == "completed"]
        if not any(metric in own for own in done) and (problem := METRICS.problem(metric)):
            raise UsageError(problem)
        return tuple(value for own in done if (value := own.get(metric)) is not None)

    def interval(self, metric: str = "val_loss") -> Interval | None:
        """The mean of a metric with its 95 % interval; None where no run has it."""
        from search.report.verdict import mean_interval

        return mean_interval(self.values(metric))

    @property
    def table(self) -> Table:
        """A row for each run."""
        rows = [
            {"seed": str(seed), "outcome": run.status, "reason": run.reason,
             **all_scores(run)}
            for seed, run in self.runs.items()
        ]  # fmt: skip
        return Table(rows, ("seed", "outcome", "val_loss", "val_bpb", "test_loss", "test_bpb"))

    def to_pandas(self) -> DataFrame:
        """A row for each run with all its metrics; needs the extra `pandas`."""
        return frame(self.table)

    def __repr__(self) -> str:
        found = self.values()
        spread = f" ± {stdev(found):.4f}" if len(found) > 1 else ""
        mean = f"{sum(found) / len(found):.4f}{spread}" if found else "no completed run"
        return f"<Evaluation of {self.program.name}: val_loss {mean}>\n{self.table!r}"

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def evaluate(
    program: Named, config: ConfigLike, seeds: int = 3, progress: bool = True
) -> Evaluation:
    """Trains a program `seeds` times from scratch under the full budget of a config, on its
    workers, and scores it on validation and test text, as `primevo evaluate` does. Nothing is
    recorded. Raises a PrimevoError where no run completes."""
    from search.campaign.proposal import derive
    from search.cli.running import on_demand
    from search.study.setting import Setting
    from search.study.study import Study, Subject

    checked = load_config(config)
    found = in_config(program, checked)
    spec = checked.search.budget
    drawn = tuple(derive(checked.seed, "evaluate", index) for index in range(seeds))
    setting = Setting(checked.task, Budget(spec.unit, spec.full), drawn)
    with on_demand(checked) as workers:
        study = Study("evaluate", setting, workers, None, say(progress))
        (runs,) = study.run([Subject.of(found.name, found.dna, setting)])
    if not any(run.status == "completed" for run in runs.values()):
        reason = next(iter(runs.values())).reason
        raise PrimevoError(f"no run of {found.name} completed: {reason}")
    return Evaluation(found, runs)


def export(program: Named, to: str | Path, config: ConfigLike) -> list[Path]:
    """Trains a program under a config's final budget and writes it as a Keras layer into a new or
    empty folder; returns the files. `Campaign.export` has the weights of a campaign's finalists."""
    from search.campaign.origin import origin_of

    checked = load_config(config)
    found = in_config(program, checked)
    return write_export(found, to, origin_of(checked, found.name))


def in_config(program: Named, config: CampaignConfig) -> Program:
    """A program as it is; one that is named, loaded for the config's width, and in the blocks that
    its `search.every` says."""
    if isinstance(program, Program):
        return program
    found = load_program(program, config.task.model.d_model)
    return Program(found.name, spaced(found.dna, config.search.every))


def write_export(program: Program, to: str | Path, origin: Mapping[str, Any]) -> list[Path]:
    """An export of known origin (search.campaign.origin), its failures as PrimevoErrors."""
    from workers.data.corpora import DataError
    from workers.export.export import ExportError, export_candidate

    try:
        return export_candidate(program.dna, Path(to), **origin)
    except (ExportError, DataError) as error:
        raise PrimevoError(str(error)) from None


def say(progress: bool) -> Callable[[str], None]:
    """Lines of progress on stderr, or nowhere."""
    return (lambda line: print(line, file=sys.stderr)) if progress else (lambda line: None)
