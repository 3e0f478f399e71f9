"""Regularised evolution (Real et al. 2019): the youngest survive, the fittest of a sample breeds.

The population is the last P completed candidates in order of completion; nothing is ever removed
for being bad, only for being old. A candidate that was paused and went on completes again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from random import Random
from typing import Any, NamedTuple


class Member(NamedTuple):
    """A candidate in the population; lower fitness is better."""

    id: int
    fitness: float


Population = deque[Member]


def founders(seeds: Sequence[Member], size: int) -> Population:
    """The first population: `size` copies of the seed programs, in turn."""
    return deque(islice(cycle(seeds), size), maxlen=size)


def admit(population: Population, member: Member) -> None:
    """The newly completed candidate comes in; the oldest goes."""
    population.append(member)


def withdraw(population: Population, id: int) -> None:
    """A candidate that was paused has gone on, and what it had then no longer holds. The last
    member stays, so that there is always one to breed."""
    for place, member in enumerate(population):
        if member.id == id and len(population) > 1:
            del population[place]
            return


def by_fitness(member: Member) -> float:
    return member.fitness


def tournament(
    population: Population,
    size: int,
    rng: Random,
    standing: Callable[[Member], Any] = by_fitness,
) -> Member:
    """The member of the lowest standing among `size` drawn with replacement; ties go to the first
    drawn."""
    return min(rng.choices(population, k=size), key=standing)
