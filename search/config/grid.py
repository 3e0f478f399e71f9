"""What a study over a grid is told: one frozen, strict tree. `search.config.gridfile` reads it."""

from __future__ import annotations

import re
from itertools import product
from math import prod
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    field_serializer,
    field_validator,
    model_validator,
)

from primitives.errors import unknown
from primitives.language.dna import EVERY, MIDDLE
from search.config.schema import CAMPAIGN_NAME, NAME_RULE
from search.secret import shown
from workers.machine.backends import BACKENDS
from workers.spec.outcome import Unit
from workers.spec.pool import PoolSpec, cannot
from workers.spec.task import DataSpec, Spec, Task, clash

MAX_POINTS = 10_000
"""Programs times sizes times texts in one study: more are a mistake in a list."""

EVERY_GENE = "every"
_GENE = re.compile(r"[dn](0|[1-9][0-9]?)\Z")


def _gene_name(name: str) -> str:
    if name != EVERY_GENE and not _GENE.match(name):
        raise ValueError(
            f"'{name}' is nothing that a study varies; write dN for a dim, nN for a count, or every"
        )
    return name


GeneName = Annotated[str, AfterValidator(_gene_name)]


def _value(found: object) -> int | str:
    if found == "middle" or (type(found) is int and found >= 0):
        return found
    raise ValueError(f"a value is a whole number, or middle; found {found!r}")


def _without_twins(values: tuple[object, ...]) -> tuple[object, ...]:
    for each in values:
        if values.count(each) > 1:
            raise ValueError(f"{each} stands there twice; each point is trained once")
    return values


Value = Annotated[int | str, PlainValidator(_value)]
Values = Annotated[tuple[Value, ...], Field(min_length=1)]
Genes = dict[str, int | str]
"""Values of a program's dims, counts and `every`, by name."""


class ProgramSpec(Spec):
    """A program of a study, and which of its numbers are varied. `vary` takes every combination,
    `together` the first of each list, the second of each, and so on; both multiply."""

    program: str | None = Field(
        None, description="a seed program, or a program file; null: the seed program of that name"
    )
    vary: dict[GeneName, Values] = Field(
        default_factory=dict, description="lists of values, of which every combination is a point"
    )
    together: dict[GeneName, Values] = Field(
        default_factory=dict, description="lists of one length, read side by side"
    )

    @property
    def count(self) -> int:
        """How many variants there are."""
        side = min(map(len, self.together.values()), default=1)
        return side * prod(map(len, self.vary.values()))

    @property
    def variants(self) -> tuple[Genes, ...]:
        """What each of the program's points sets, in the order of the lists."""
        lists: list[list[Genes]] = [
            [{name: value} for value in values] for name, values in self.vary.items()
        ]
        if self.together:
            rows = zip(*self.together.values(), strict=True)
            lists.append([dict(zip(self.together, row, strict=True)) for row in rows])
        combined = product(*lists)
        return tuple({k: v for part in parts for k, v in part.items()} for parts in combined)

    @model_validator(mode="after")
    def _lists(self) -> Self:
        lengths = {name: len(values) for name, values in self.together.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            raise clash(f"lists that are read side by side have one length: {told}", "together")
        for name in self.together:
            if name in self.vary:
                raise clash(f"{name} stands in both; leave it out of one", "vary", "together")
        return self

    @field_validator("vary", "together")
    @classmethod
    def _values(cls, value: dict[str, tuple[int | str, ...]]) -> dict[str, tuple[int | str, ...]]:
        for name, values in value.items():
            for each in values:
                blocks = MIDDLE if each == "middle" else each
                if name == EVERY_GENE and (blocks not in EVERY or each == 0):
                    raise ValueError(unknown(name, str(each), ("1", "2", "4", "middle")))
                if name != EVERY_GENE and each == "middle":
                    raise ValueError(f"{name} is a number; found 'middle'")
        return value

    @field_validator("vary")
    @classmethod
    def _each_once(
        cls, value: dict[str, tuple[int | str, ...]]
    ) -> dict[str, tuple[int | str, ...]]:
        for values in value.values():
            _without_twins(values)
        return value


class AxesSpec(Spec):
    """Sizes and texts, of which every combination is trained; an empty list is the task's own."""

    d_model: tuple[Annotated[int, Field(ge=8, le=65_536, multiple_of=8)], ...] = Field(
        (), description="channels"
    )
    layers: tuple[Annotated[int, Field(ge=1, le=1_000)], ...] = ()
    sequence_length: tuple[Annotated[int, Field(ge=2, le=1 << 20)], ...] = Field(
        (), description="tokens a sequence"
    )
    data: tuple[DataSpec, ...] = Field((), description="texts, each a whole task.data")

    @field_validator("d_model", "layers", "sequence_length", "data")
    @classmethod
    def _each_once(cls, value: tuple[object, ...]) -> tuple[object, ...]:
        return _without_twins(value)


class AmountsSpec(Spec):
    """How long each run trains. It is scored at every amount, so that a run to the largest one
    gives the scores of all: schedules have no end point."""

    unit: Unit = Field(description="seconds (of training), steps, tokens or flops")
    amounts: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        min_length=1, description="points of the study, in `unit`, from the start of training"
    )
    points: int = Field(
        8, ge=0, le=1000, description="further scores on the way, which speed-up factors read"
    )

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if list(self.amounts) != sorted(set(self.amounts)):
            raise clash("amounts rise, and none stands there twice", "amounts")
        if self.unit in ("steps", "tokens"):
            for amount in self.amounts:
                if amount != int(amount):
                    raise clash(
                        f"amount {amount} must be a whole number of {self.unit}", "amounts", "unit"
                    )
        return self

    @property
    def full(self) -> float:
        return self.amounts[-1]


class StudyConfig(Spec):
    """Everything that decides a study."""

    name: str | None = Field(
        None, pattern=CAMPAIGN_NAME, description="default: the file's name; " + NAME_RULE
    )
    seed: int = Field(0, ge=0, description="all random numbers derive from it")
    plugins: tuple[str, ...] = Field(
        (), description="modules, or names of installed plug-ins, that add rows to the tables"
    )
    task: Task = Task()
    programs: dict[Annotated[str, Field(pattern=CAMPAIGN_NAME)], ProgramSpec] = Field(
        min_length=1, description="what is compared, by a name for each"
    )
    baseline: str | None = Field(
        None, description="the program that the others are held against; default: the first"
    )
    grid: AxesSpec = AxesSpec()
    budget: AmountsSpec
    seeds: int = Field(3, ge=1, le=1000, description="runs of each point")
    workers: PoolSpec = PoolSpec()
    storage: str = Field(
        "sqlite:///primevo.db",
        description="database URL; a password in it is used, and neither shown nor stored",
    )

    @property
    def measure(self) -> str:
        """The name of the baseline."""
        return self.baseline or next(iter(self.programs))

    @property
    def size(self) -> int:
        """How many points the grid has, before those that are one program are counted once."""
        axes = self.grid
        variants = sum(each.count for each in self.programs.values())
        lists = (axes.d_model, axes.layers, axes.sequence_length, axes.data)
        for each in lists:
            variants *= max(1, len(each))
        return variants

    @field_serializer("storage")
    def _without_password(self, url: str) -> str:
        return shown(url)

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.baseline is not None and self.baseline not in self.programs:
            told = unknown("program", self.baseline, self.programs)
            raise clash(f"baseline: {told}", "baseline")
        return self

    @model_validator(mode="after")
    def _not_endless(self) -> Self:
        if self.size > MAX_POINTS:
            raise clash(
                f"the grid has {self.size:,} points, more than {MAX_POINTS:,}; shorten a list",
                "grid", "programs",
            )  # fmt: skip
        return self

    @model_validator(mode="after")
    def _compiled_ahead(self) -> Self:
        if problem := cannot(self.workers, BACKENDS[self.task.training.backend]):
            raise clash(problem, "workers.ahead", "task.training.backend")
        return self
