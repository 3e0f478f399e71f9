"""What a study over a grid found: laws, the frontier, and where programs beat the baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from search.config.grid import StudyConfig
from search.report.verdict import Interval
from search.study.comparison import ends
from search.study.frontier import AXES, Axis, Placed, frontier, place
from search.study.grid import Cell, Point, points, run
from search.study.law import Law, Sample, fit
from search.study.runner import Runner
from search.study.speed import SpeedUp, speed_up
from workers.spec.outcome import BACKWARD


@dataclass(frozen=True, slots=True)
class Measure:
    """A row of MEASURES: what a program's loss may be a power of. `of` gives it for a cell, `group`
    what else must be equal, and `on_frontier` says that only cells count that no other cell of the
    program beats at its cost or less."""

    name: str
    meaning: str
    of: Callable[[Cell], float | None]
    group: Callable[[Cell], str]
    on_frontier: bool = False


def training_flops(cell: Cell) -> float | None:
    """Of a whole run, forward and backward."""
    per_token, tokens = cell.of("flops_per_token"), cell.of("tokens")
    return BACKWARD * per_token * tokens if per_token and tokens else None


def _trained(cell: Cell) -> str:
    """Cells of one group and program have learned from the same text for the same amount."""
    text, amount = cell.group
    return f"{text} {amount:g}"


def _sized(cell: Cell) -> str:
    """Of these the model has the same sizes, too."""
    sizes = (f"{name}={value}" for name, value in cell.point.place.items() if name != "data")
    return " ".join([_trained(cell), *sizes])


MEASURES = (
    Measure(
        "training_flops", "FLOPs of training, along the frontier", training_flops,
        lambda cell: cell.group[0], on_frontier=True,
    ),
    Measure(
        "flops_per_token", "active FLOPs a token", lambda cell: cell.of("flops_per_token"), _trained
    ),
    Measure("params", "parameters", lambda cell: cell.of("params"), _trained),
    Measure("granularity", "experts a token meets", lambda cell: cell.point.granularity, _sized),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fitted:
    """The law of one program in one measure; None where its cells do not differ in it,
    or by less than `law.SPAN`."""

    program: str
    measure: Measure
    law: Law | None


@dataclass(frozen=True, slots=True)
class Scaled:
    """A whole study. `placed` holds the programs beside the baseline on each axis, `speed` their
    speed-up at the largest amount over the best of the baseline's points of the same sizes, by the
    cell's title."""

    config: StudyConfig
    cells: tuple[Cell, ...]
    laws: tuple[Fitted, ...]
    placed: tuple[Placed, ...]
    speed: dict[str, SpeedUp]

    @property
    def programs(self) -> tuple[str, ...]:
        return tuple(self.config.programs)

    def frontier(self, program: str) -> list[Cell]:
        """Over FLOPs of training."""
        own = [cell for cell in self.cells if cell.point.program == program]
        return frontier(own, training_flops)


def scale(runner: Runner, config: StudyConfig) -> Scaled:
    """Trains what was not trained before, and fits and compares."""
    return summed_up(config, run(runner, points(config), config.budget.amounts))


def summed_up(config: StudyConfig, cells: Sequence[Cell]) -> Scaled:
    """What the cells of a study say."""
    base = [cell for cell in cells if cell.point.program == config.measure]
    others = [cell for cell in cells if cell.point.program != config.measure]
    placed = [
        found
        for axis in AXES
        for cell in others
        if (found := place(cell, [one for one in base if one.group == cell.group], axis))
    ]
    laws = [
        Fitted(name, measure, _law(cells, name, measure, config.seed))
        for name in config.programs
        for measure in MEASURES
    ]
    return Scaled(config, tuple(cells), tuple(laws), tuple(placed), _speeds(base, others))


def _law(cells: Iterable[Cell], program: str, measure: Measure, seed: int) -> Law | None:
    own = [cell for cell in cells if cell.point.program == program]
    if measure.on_frontier:
        groups: dict[str, list[Cell]] = {}
        for cell in own:
            groups.setdefault(measure.group(cell), []).append(cell)
        own = [cell for group in groups.values() for cell in frontier(group, measure.of)]
    samples = [
        Sample(x, cell.mean, measure.group(cell))
        for cell in own
        if (x := measure.of(cell)) and cell.mean
    ]
    return fit(samples, seed)


def _speeds(baseline: Sequence[Cell], others: Sequence[Cell]) -> dict[str, SpeedUp]:
    """Primer's factor: the baseline's compute over what a program needs for the same loss."""
    found: dict[str, SpeedUp] = {}
    for cell in others:
        if cell.amount != cell.point.setting.budget.amount:
            continue
        same = [
            one
            for one in baseline
            if one.amount == cell.amount and one.point.place == cell.point.place and one.mean
        ]
        if same:
            best = min(same, key=lambda one: one.mean or 0.0)
            found[cell.title] = speed_up(cell.runs, best.runs)
    return found


def sentences(found: Scaled) -> list[str]:
    """The study's answers, a line each."""
    told = [line for each in found.laws if (line := _law_told(each))]
    for name in found.programs:
        if name == found.config.measure:
            continue
        for axis in AXES:
            told.append(_pays(found, name, axis))
    return told


def _law_told(fitted: Fitted) -> str:
    law = fitted.law
    if law is None:
        return ""
    floor = f" above a floor of {_interval(law.floor, 3)}" if law.floor else ""
    fits = f"{law.cells} cells, R2 {law.r_squared:.3f}"
    exponent, meaning = law.exponent, fitted.measure.meaning
    if exponent.low <= 0 <= exponent.high:
        told = _interval(exponent, 4)
        return f"{fitted.program}: no clear trend in {meaning}, exponent {told}{floor}; {fits}"
    falls, size = ("falls", exponent) if exponent.centre > 0 else ("rises", _turned(exponent))
    sign = "-" if exponent.centre > 0 else ""
    return (
        f"{fitted.program}: loss {falls} as ({meaning})^{sign}{_interval(size, 4)}{floor}; {fits}"
    )


def _turned(interval: Interval) -> Interval:
    return Interval(-interval.centre, -interval.high, -interval.low)


def _pays(found: Scaled, program: str, axis: Axis) -> str:
    """At which point a program beats the baseline at an equal cost, or that it does not."""
    own = [p for p in found.placed if p.axis == axis and p.cell.point.program == program]
    compared = [each for each in own if each.against is not None]
    base, budget = found.config.measure, found.config.budget
    head = f"at equal {axis.name}, {program}"
    outside = len(own) - len(compared)
    beyond = f"; {outside} more lie outside {base}'s grid" if outside else ""
    if not own:
        return f"{head} cannot be compared with {base}: no seed has a score of both"
    if not compared:
        return f"{head} cannot be compared with {base}: all {len(own)} cells lie outside its grid"
    better = [each for each in compared if each.better]
    if not better:
        nearest = min(compared, key=lambda each: _difference(each).centre)
        return (
            f"{head} does not beat {base} within the grid ({len(compared)} cells compared"
            f"{beyond}); nearest: {_cell_told(nearest, budget.unit)}"
        )
    first = min(better, key=lambda each: (each.cell.amount, each.x))
    chance = 0.025 * len(compared)
    return (
        f"{head} beats {base} in {len(better)} of {len(compared)} cells (by chance about "
        f"{chance:.1f}{beyond}); first: {_cell_told(first, budget.unit)}"
    )


def _cell_told(placed: Placed, unit: str) -> str:
    difference = _difference(placed)
    return (
        f"{placed.cell.title} after {placed.cell.amount:g} {unit}, at {placed.x:.3g} "
        f"{placed.axis.unit}: {_interval(difference, 4, signed=True)} bits a byte"
    )


def _difference(placed: Placed) -> Interval:
    assert placed.against is not None and placed.against.difference is not None
    return placed.against.difference


def _interval(interval: Interval, digits: int, signed: bool = False) -> str:
    sign = "+" if signed else ""
    centre = f"{interval.centre:{sign}.{digits}f}"
    if interval.high == float("inf"):
        return f"{centre} (no interval)"
    return f"{centre} ({interval.low:{sign}.{digits}f} to {interval.high:{sign}.{digits}f})"


def records(found: Scaled) -> list[dict[str, Any]]:
    """A record for each cell, as `study -o json` and `-o csv` give it."""
    best = {id(cell) for name in found.programs for cell in found.frontier(name)}
    return [_record(found, cell, id(cell) in best) for cell in found.cells]


def _record(found: Scaled, cell: Cell, best: bool) -> dict[str, Any]:
    point, speed = cell.point, found.speed.get(cell.title)
    full = cell.amount == point.setting.budget.amount
    own = {each.axis.metric: each.against for each in found.placed if each.cell is cell}
    row: dict[str, Any] = {
        "cell": cell.title,
        "program": point.program,
        **point.genes,
        **point.place,
        "amount": cell.amount,
        "unit": point.setting.budget.unit,
        "hash": point.subject.hash,
        "runs": len(cell.losses),
        "failed": [each.status for each in cell.runs.values() if each.status != "completed"],
        "val_bpb": cell.mean,
        "losses": list(cell.losses.values()),
        "test_bpb": cell.of("test_bpb"),
        "flops_per_token": cell.of("flops_per_token"),
        "training_flops": training_flops(cell),
        "params": cell.of("params"),
        "active_params": cell.of("active_params"),
        "granularity": point.granularity,
        "step_time_s": cell.of("step_time_s"),
        "train_seconds": cell.of("train_seconds"),
        "tokens": cell.of("tokens"),
        "frontier": best,
    }
    for axis in AXES:
        against = own.get(axis.metric)
        difference = against.difference if against else None
        row |= ends(f"at_equal_{axis.metric}", difference)
    for name in ("flops", "seconds"):
        factor = getattr(speed, name) if speed and full else None
        row |= ends(f"speedup_{name}", factor)
    return row


def law_records(found: Scaled) -> list[dict[str, Any]]:
    """A record for each law that could be fitted."""
    return [
        {
            "program": each.program,
            "measure": each.measure.name,
            **ends("exponent", each.law.exponent),
            **ends("floor", each.law.floor),
            "cells": each.law.cells,
            "r_squared": each.law.r_squared,
            "scales": dict(each.law.scales),
        }
        for each in found.laws
        if each.law is not None
    ]


__all__ = ["Point", "Scaled", "law_records", "records", "scale", "sentences", "summed_up"]
