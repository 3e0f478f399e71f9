"""A campaign's state as a fold over what was recorded.

`State.apply` is the only way state changes: a running controller applies each event as it records
it, and `fold` applies the recorded ones again, so resuming is having lived. Order counts among
proposals and among endings; a proposal may come before the endings of earlier candidates, as it
does when the database lists them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING

from search.campaign.ranking import Ranking, choice
from search.evolution.hurdles import Hurdles, spent
from search.evolution.population import (
    Member,
    Population,
    admit,
    founders,
    tournament,
    withdraw,
)
from search.evolution.rungs import Rungs
from search.storage.events import Ended, Event, Proposed

if TYPE_CHECKING:
    from search.config.schema import SearchSpec


@dataclass(frozen=True, slots=True)
class Score:
    """A candidate with its fitness (nats per token) and its bits per byte, both on validation."""

    id: int
    fitness: float
    val_bpb: float | None


class Tally:
    """Running counts for the display. Budget amounts are those of completed runs, in its unit.
    `held_at` counts at each hurdle the completed runs that ended there, `reached` and `went_on` the
    children that it judged."""

    def __init__(self, hurdles: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.duplicates = self.children = 0
        self.spent = self.saved_by_duplicates = self.saved_by_hurdles = 0.0
        self.held_at = [0] * hurdles
        self.reached, self.went_on = [0] * hurdles, [0] * hurdles


class State:
    """What the controller knows. Only `apply` changes it.

    `pending` holds candidates without an outcome; `seen` the candidate of each hash that was
    trained, and `hashes` the hash of every candidate; `behaviours` and `behaviour_of` are the same
    for what candidates do, where that is known; `results` is the ending of each search run, and
    `finals` has those of the final phase by (candidate, seed). `rungs` holds the candidates that
    are paused: their ending is that of their last stage, and a later one takes its place."""

    def __init__(self, spec: SearchSpec) -> None:
        self.spec = spec
        self.candidates = 0
        self.sequence = 0
        self.pending: dict[int, Proposed] = {}
        self.seen: dict[str, int] = {}
        self.hashes: dict[int, str] = {}
        self.behaviours: dict[str, int] = {}
        self.behaviour_of: dict[int, str] = {}
        self.results: dict[int, Ended] = {}
        self.finals: dict[tuple[int, int], Ended] = {}
        self.population: Population = founders((), 0)
        self.ranking = Ranking(spec.goals)
        budget = spec.budget
        self.hurdles = Hurdles(budget.hurdles_at, spec.population, budget.rule, budget.eta)
        self.rungs = Rungs(budget.hurdles if budget.promotes else 0, budget.eta)
        self._hurdle_places = budget.hurdle_places
        self.best: Score | None = None
        self.tally = Tally(spec.budget.hurdles)

    def apply(self, event: Event) -> None:
        if isinstance(event, Proposed):
            self._proposed(event)
        elif event.kind == "final":
            self.sequence = event.sequence
            self.finals[event.id, event.seed] = event
        else:
            self.sequence = event.sequence
            self._ended(event)

    @property
    def seeds_done(self) -> bool:
        """Whether every seed program has an outcome, so that there is a population."""
        return all(id in self.results for id in self._seed_ids)

    @property
    def searched(self) -> bool:
        """Whether every candidate of the campaign has an outcome, and none is to go on."""
        return not self.open and not self.pending and self.promotable() is None

    @property
    def open(self) -> bool:
        """Whether children are still to come."""
        return self.candidates < self.spec.candidates

    def promotable(self, going: Collection[int] = ()) -> int | None:
        """The paused candidate that is to go on next, if any; `going` are those under way."""
        return self.rungs.next(self.open, going)

    @cached_property
    def finalists(self) -> tuple[int, ...]:
        """The first seed program, then the best distinct others: those with the lowest validation
        loss, or what `ranking.choice` takes of several objectives. To be read once `searched`."""
        if self.spec.final.top == 0 or 1 not in self.results:
            return ()
        completed = [id for id in self.seen.values() if self.results[id].fitness is not None]
        if self.spec.goals:
            return (1, *choice(self.spec, self.results, completed))
        ranked = sorted((self.results[id].fitness, id) for id in completed if id != 1)
        return (1, *(id for _, id in ranked[: self.spec.final.top]))

    def parent(self, rng: Random) -> Member:
        """The member of the population that breeds next: the best of a sample by fitness, or with
        several objectives by rank and crowding among all of the population."""
        size = self.spec.tournament
        if not self.spec.goals:
            return tournament(self.population, size, rng)
        ends = (self.results[id] for id in {member.id for member in self.population})
        standing = self.ranking.of(ends, self.sequence)
        return tournament(self.population, size, rng, lambda member: standing[member.id])

    @property
    def _seed_ids(self) -> range:
        return range(1, len(self.spec.seeds) + 1)

    def _proposed(self, event: Proposed) -> None:
        self.candidates = event.id
        self.pending[event.id] = event
        self.hashes[event.id] = event.hash
        does = event.behaviour
        if event.duplicate_of is None:
            self.seen.setdefault(event.hash, event.id)
            if does is not None:
                self.behaviours.setdefault(does, event.id)
        else:
            does = self.behaviour_of.get(event.duplicate_of)
        if does is not None:
            self.behaviour_of[event.id] = does
        for reason, count in event.rejections.items():
            self.tally.rejected[reason] += count

    def _ended(self, event: Ended) -> None:
        if event.id in self.rungs:
            self._went_on(event.id)
            duplicate = False
        else:
            duplicate = self.pending.pop(event.id).duplicate_of is not None
        self.results[event.id] = event
        self._count(event, duplicate)
        fitness = event.fitness
        if fitness is not None and event.id not in self._seed_ids:
            admit(self.population, Member(event.id, fitness))
        if fitness is not None and (self.best is None or fitness < self.best.fitness):
            self.best = Score(event.id, fitness, event.val_bpb)
        if event.id in self._seed_ids and self.seeds_done:
            self.population = founders(self._completed_seeds(), self.spec.population)
        hurdle, paused = event.hurdles_passed, self.spec.budget.promotes and not duplicate
        if paused and fitness is not None and hurdle < self.spec.budget.hurdles:
            self.rungs.arrive(event.id, hurdle, fitness)

    def _went_on(self, id: int) -> None:
        """A paused candidate has ended again: what it had when it was paused is forgotten."""
        before = self.results.pop(id)
        self.rungs.leave(id)
        self._count_trained(before, -1)
        withdraw(self.population, id)
        if self.best is not None and self.best.id == id:
            self.best = self._lowest()

    def _lowest(self) -> Score | None:
        """The best of all that have ended; of equal ones the first."""
        known = [
            (end.fitness, end.sequence, Score(end.id, end.fitness, end.val_bpb))
            for end in self.results.values()
            if end.fitness is not None
        ]
        return min(known)[2] if known else None

    def _completed_seeds(self) -> list[Member]:
        results = (self.results[id] for id in self._seed_ids)
        return [Member(end.id, end.fitness) for end in results if end.fitness is not None]

    def _count(self, event: Ended, duplicate: bool) -> None:
        if duplicate:
            self.tally.duplicates += 1
            self.tally.saved_by_duplicates += self._used(event)
            return
        losses = event.at_hurdles(self._hurdle_places)
        self.hurdles.record(losses, event.hurdles_passed, event.id not in self._seed_ids)
        self._count_trained(event, 1)

    def _count_trained(self, event: Ended, by: int) -> None:
        """Counts the ending of a run, or takes it back where `by` is -1."""
        tally, passed = self.tally, event.hurdles_passed
        tally.outcomes[event.status] += by
        if event.id not in self._seed_ids:
            tally.children += by
            reached = max(len(event.at_hurdles(self._hurdle_places)), passed)
            for place in range(min(reached, len(tally.reached))):
                tally.reached[place] += by
                tally.went_on[place] += by * (place < passed)
        if event.status == "completed":
            used = self._used(event)
            tally.spent += by * used
            tally.saved_by_hurdles += by * (self.spec.budget.full - used)
            if passed < len(tally.held_at):
                tally.held_at[passed] += by

    def _used(self, event: Ended) -> float:
        """What a completed run took of the budget."""
        budget = self.spec.budget
        if event.status != "completed":
            return 0.0
        return spent(budget.hurdles_at, budget.full, event.hurdles_passed)


def fold(spec: SearchSpec, events: Iterable[Event]) -> State:
    """The state after `events`."""
    state = State(spec)
    for event in events:
        state.apply(event)
    return state
