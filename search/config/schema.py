"""What a campaign is told: one frozen, strict tree. `search.config.file` reads it from YAML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_serializer, field_validator, model_validator

from primitives.errors import unknown
from search.config.places import evenly
from search.errors import UsageError
from search.evolution.hurdles import Rule
from search.evolution.mutation import DEFAULT_PROBABILITIES, MUTATIONS
from search.secret import shown
from workers.machine.backends import BACKENDS
from workers.spec.metrics import METRICS
from workers.spec.objectives import OBJECTIVES
from workers.spec.outcome import Unit
from workers.spec.pool import PoolSpec, cannot
from workers.spec.task import Spec, Task, clash


def _mutation_name(name: str) -> str:
    if problem := MUTATIONS.problem(name):
        raise ValueError(problem)
    return name


MutationName = Annotated[str, AfterValidator(_mutation_name)]
Weight = Annotated[float, Field(ge=0)]


def objective_name(name: str) -> str:
    """The name of a metric that a run of the search has, and of which one value is better than
    another; a ValueError for any other."""
    allowed = [row.name for row in METRICS.values() if row.where != "test" and row.better != "none"]
    if name not in allowed:
        raise ValueError(unknown("objective", name, allowed))
    return name


ObjectiveName = Annotated[str, AfterValidator(objective_name)]


class BudgetSpec(Spec):
    """The training a candidate may get: `hurdles` hurdles on the way to `full`.

    Band k is base * eta^k long, so hurdle k stands at base * (1 + eta + ... + eta^k), and 1 in eta
    of those that reach a hurdle are meant to go on (Primer, section "hurdles", has eta 2).
    """

    unit: Unit = Field(description="seconds (of training), steps, tokens or flops")
    base: float = Field(gt=0, description="up to the first hurdle, in `unit`")
    hurdles: int = Field(0, ge=0, le=16)
    eta: int = Field(
        2, ge=2, le=16, description="1 in eta goes on from a hurdle, into a band eta times as long "
        "as the one before"
    )  # fmt: skip
    rule: Rule = Field(
        "top", description="who goes on from a hurdle: the top 1/eta of all that reached it; "
        "promote: all are paused there, and the best 1/eta go on when a worker is free; or, as in "
        "earlier versions, median: those at or under the median of the latest"
    )  # fmt: skip

    points: int = Field(
        0, ge=0, le=1000, description="further validation losses along every run, evenly spread "
        "over the full budget, for its curve; they stop nobody. Each is one pass over the "
        "validation slice"
    )  # fmt: skip

    @property
    def hurdles_at(self) -> tuple[float, ...]:
        """Where the hurdles stand, in `unit` from the start of training."""
        return tuple(self.base * self._bands(k + 1) for k in range(self.hurdles))

    @property
    def promotes(self) -> bool:
        """Whether candidates are paused at hurdles and go on later."""
        return self.rule == "promote" and self.hurdles > 0

    @property
    def points_at(self) -> tuple[float, ...]:
        """Where a run is scored beside the hurdles and the end, in `unit`."""
        return evenly(self.unit, self.full, self.points, beside=self.hurdles_at)

    @property
    def hurdle_places(self) -> tuple[int, ...]:
        """Which of a run's scores are those at hurdles, counted from 0 in the order of training."""
        order = sorted((*self.hurdles_at, *self.points_at))
        return tuple(order.index(at) for at in self.hurdles_at)

    @property
    def full(self) -> float:
        """What a candidate that passes every hurdle gets, in `unit`."""
        return float(self.base * self._bands(self.hurdles + 1))

    def _bands(self, count: int) -> int:
        """How long the first bands are together, times the first one."""
        return sum(self.eta**band for band in range(count))

    @property
    def full_share(self) -> float:
        """The share of children that are meant to get all of it."""
        return float(self.eta) ** -self.hurdles

    @model_validator(mode="after")
    def _half(self) -> Self:
        if self.rule == "median" and self.eta != 2:
            raise clash(
                f"a median lets half go on, and eta is {self.eta}; set rule to top", "rule", "eta"
            )
        return self

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.unit in ("steps", "tokens") and self.base != int(self.base):
            raise clash(f"base {self.base} must be a whole number of {self.unit}", "base", "unit")
        return self


class LimitsSpec(Spec):
    """What a child may cost; null switches a limit off. Parameters, FLOPs and the time of a step
    are limited in multiples of the first seed program's, instructions in plain numbers. All but the
    time of a step are judged before the child is trained."""

    max_instructions: int = Field(
        120, ge=1, description="of the whole program, unused ones counted; a plain number"
    )
    parameters_min: float | None = Field(0.5, ge=0, description="times the first seed program's")
    parameters_max: float | None = Field(2.0, gt=0, description="times the first seed program's")
    flops_max: float | None = Field(None, gt=0, description="times the first seed program's")
    step_time_max: float | None = Field(
        3.0, gt=0, description="times the first seed program's, measured in training; a candidate "
        "whose step takes longer is stopped after its first steps"
    )  # fmt: skip
    memory_mb: float | None = Field(
        None, gt=0, description="that training takes at the least; null: what a worker has on the "
        "machine where the campaign is launched, no limit with workers.address"
    )  # fmt: skip

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, high = self.parameters_min, self.parameters_max
        if low is not None and high is not None and low > high:
            raise clash(
                f"parameters_min {low} is above parameters_max {high}",
                "parameters_min", "parameters_max",
            )  # fmt: skip
        return self


class FinalSpec(Spec):
    """The last phase: the best distinct candidates and the first seed program, with fresh seeds."""

    top: int = Field(3, ge=0, description="candidates trained again; 0 skips the phase")
    seeds: int = Field(3, ge=1, description="runs of each")
    budget: float = Field(1.0, gt=0, description="times the full search budget")


class SearchSpec(Spec):
    """Regularised evolution (Real et al. 2019): population, tournament, mutations, limits."""

    seeds: tuple[str, ...] = Field(
        ("transformer",), min_length=1, description="seed programs by name, program files, or "
        "candidates: campaign:NAME/ID, campaign:NAME for its best"
    )  # fmt: skip
    every: Literal[1, 2, 4, "middle"] = Field(
        1,
        description="which blocks run a routed seed program: every one, every second or fourth, "
        "the middle one; task.model.other runs in the rest. Evolution may change it",
    )
    population: int = Field(100, ge=1)
    tournament: int = Field(10, ge=1)
    candidates: int = Field(ge=1, description="recorded in all, the seed programs counted")
    mutations: dict[MutationName, Weight] = Field(
        default_factory=lambda: dict(DEFAULT_PROBABILITIES),
        description="relative weights; a mutation that is left out is off",
    )
    behaviour: bool = Field(
        True, description="whether a child that does what an earlier candidate does, on fixed "
        "inputs, takes over its outcome, and one that does what its parent does is refused"
    )  # fmt: skip
    divergence: bool = Field(
        True, description="whether a child is refused whose values grow out of bounds, or cross "
        "zero where it divides or takes a root or logarithm, before anything is trained"
    )  # fmt: skip
    objectives: tuple[ObjectiveName, ...] = Field(
        ("val_loss",), min_length=1, description="metrics that decide who breeds, each in its own "
        "direction; more than one are weighed by non-dominated rank and crowding (NSGA-II)"
    )  # fmt: skip
    budget: BudgetSpec
    limits: LimitsSpec = LimitsSpec()
    final: FinalSpec = FinalSpec()

    @property
    def goals(self) -> tuple[str, ...]:
        """The objectives where they are not the validation loss alone, else none."""
        return () if self.objectives == ("val_loss",) else self.objectives

    @property
    def compares_behaviour(self) -> bool:
        """Whether what children do is asked. Where more than the loss counts, or a budget is in
        seconds, it is not: an equal function may be a faster program."""
        return self.behaviour and not self.goals and self.budget.unit != "seconds"

    @property
    def final_amount(self) -> float:
        """What a run of the final phase gets, in the budget's unit."""
        amount = self.budget.full * self.final.budget
        return float(round(amount)) if self.budget.unit in ("steps", "tokens") else amount

    @property
    def final_points(self) -> tuple[float, ...]:
        """Where a run of the final phase is scored on its way: where those of the search are, as
        far as it comes there, and at the same distances on where it trains for longer."""
        budget, last = self.budget, self.final_amount
        own = (*budget.hurdles_at, budget.full)
        more = evenly(budget.unit, budget.full, budget.points, beside=own, end=last)
        return tuple(point for point in sorted((*own, *more)) if point < last)

    @field_validator("objectives")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if value.count(name) > 1:
                raise ValueError(f"{name} is named twice; name each objective once")
        return value

    @field_validator("mutations")
    @classmethod
    def _some_mutation(cls, value: dict[str, float]) -> dict[str, float]:
        if sum(value.values()) <= 0:
            raise ValueError("every mutation has weight 0; at least one must be above")
        return value

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.tournament > self.population:
            raise clash(
                f"tournament {self.tournament} is larger than population {self.population}",
                "tournament", "population",
            )  # fmt: skip
        if self.candidates < len(self.seeds):
            raise clash(
                f"candidates {self.candidates} is below the {len(self.seeds)} seed programs",
                "candidates", "seeds",
            )  # fmt: skip
        return self


CAMPAIGN_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"
"""Folders are called after campaigns: a name cannot be `..`, a hidden file, or a path."""

PAUSED = "paused"
"""The folder for the checkpoints of paused candidates, in a campaign's folder of weights."""

NAME_RULE = "a letter or digit, then at most 99 letters, digits, '_', '.' and '-'"


def campaign_name(name: str, remedy: str) -> str:
    """The name, or a UsageError where no campaign can have it; `remedy` says what to do then."""
    if re.fullmatch(CAMPAIGN_NAME, name) is None:
        raise UsageError(f"{name[:120]!r} cannot name a campaign ({NAME_RULE}); {remedy}")
    return name


class CampaignConfig(Spec):
    """Everything that decides a campaign, as it is stored with it."""

    name: str | None = Field(
        None, pattern=CAMPAIGN_NAME, description="default: the file's name; " + NAME_RULE
    )
    seed: int = Field(0, ge=0, description="all random numbers derive from it")
    plugins: tuple[str, ...] = Field(
        (), description="modules, or names of installed plug-ins, that add rows to the tables"
    )
    task: Task = Task()
    search: SearchSpec
    workers: PoolSpec = PoolSpec()
    storage: str = Field(
        "sqlite:///primevo.db",
        description="database URL; a password in it is used, and neither shown nor stored",
    )
    weights: str = Field(
        "primevo-weights", description="folder where the finalists' trained weights are kept"
    )

    @field_serializer("storage")
    def _without_password(self, url: str) -> str:
        return shown(url)

    @model_validator(mode="after")
    def _compiled_ahead(self) -> Self:
        backend = self.task.training.backend
        if problem := cannot(self.workers, BACKENDS[backend]):
            raise clash(problem, "workers.ahead", "task.training.backend")
        return self

    @model_validator(mode="after")
    def _marks_are_read(self) -> Self:
        objective = self.task.training.objective
        if self.search.mutations.get("remember") and not OBJECTIVES[objective].remembers:
            able = ", ".join(name for name, row in OBJECTIVES.items() if row.remembers)
            raise clash(
                f"mutation remember marks what objectives with memories read, and {objective} has "
                f"none; leave it out, or train for one of: {able}",
                "search.mutations", "task.training.objective",
            )  # fmt: skip
        return self

    def weights_file(self, campaign: str, id: int) -> Path:
        """Where the weights of a finalist's first run are kept, by the worker that ran it."""
        return self.weights_folder(campaign) / f"{id}.npz"

    def weights_folder(self, campaign: str) -> Path:
        """The campaign's own folder."""
        return Path(self.weights).absolute() / campaign

    def checkpoint_file(self, campaign: str, id: int) -> Path:
        """Where a paused candidate is kept, by the worker that trained it."""
        return self.weights_folder(campaign) / PAUSED / f"{id}.npz"
