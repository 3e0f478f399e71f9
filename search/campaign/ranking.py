"""How candidates stand against each other in a campaign with more than one objective.

A loss says something only beside losses after as much training. So candidates are first told apart
by how far they came: those that passed more hurdles stand before those that passed fewer, whatever
their other objectives are, as feasible solutions stand before others in constrained NSGA-II (Deb et
al. 2002, section VI). Otherwise the fastest program, which a hurdle stopped for its loss, would be
on the front for being fast. Among those that came equally far, rank and crowding decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from search.evolution.pareto import Point, crowding, knee, ranks
from search.storage.events import Ended
from workers.spec.metrics import METRICS

if TYPE_CHECKING:
    from search.config.schema import SearchSpec


class Standing(NamedTuple):
    """Where a candidate stands; the lower of two is the better one. `rank` counts fronts from 0,
    `crowded` is the crowding distance in its front, negated."""

    rank: int
    crowded: float


def point_of(end: Ended, goals: Sequence[str]) -> Point:
    """The values of the metrics `goals`, which the ending carries, negated where higher is better;
    infinite where one was not measured."""
    return tuple(
        inf if value is None else -value if METRICS[name].better == "higher" else value
        for name, value in zip(goals, end.goals, strict=True)
    )


def standings(ends: Iterable[Ended], goals: Sequence[str]) -> dict[int, Standing]:
    """How completed candidates stand against each other, by candidate."""
    levels: dict[int, list[Ended]] = {}
    for end in ends:
        levels.setdefault(end.hurdles_passed, []).append(end)
    found: dict[int, Standing] = {}
    first = 0
    for _, level in sorted(levels.items(), reverse=True):
        points = [point_of(end, goals) for end in level]
        rank_of = ranks(points)
        for rank in range(max(rank_of) + 1):
            own = [place for place, each in enumerate(rank_of) if each == rank]
            distances = crowding([points[place] for place in own])
            for place, distance in zip(own, distances, strict=True):
                found[level[place].id] = Standing(first + rank, -distance)
        first += max(rank_of) + 1
    return found


def front(ends: Iterable[Ended], goals: Sequence[str]) -> list[Ended]:
    """The completed candidates that no other beats, from the lowest value of the first objective
    to the highest."""
    known = {end.id: end for end in ends}
    best = [known[id] for id, each in standings(known.values(), goals).items() if each.rank == 0]
    return sorted(best, key=lambda end: (point_of(end, goals), end.id))


def choice(spec: SearchSpec, results: Mapping[int, Ended], ids: Iterable[int]) -> tuple[int, ...]:
    """Which candidates the final phase trains again besides the first seed program, at most
    `final.top` of the distinct completed ones `ids`: the one with the lowest validation loss, the
    knee of the front, its end in each objective, then others as they stand."""
    goals, known = spec.goals, {id: results[id] for id in ids}
    standing = standings(known.values(), goals)
    others = {id: end for id, end in known.items() if id != 1}
    if not others:
        return ()
    chosen = [min(others, key=lambda id: (others[id].val_loss, id))]
    best = [others[end.id] for end in front(known.values(), goals) if end.id != 1]
    if best:
        points = [point_of(end, goals) for end in best]
        chosen.append(best[knee(points)].id)
        for place in range(len(goals)):
            chosen.append(best[min(range(len(best)), key=lambda i: points[i][place])].id)
    chosen += sorted(others, key=lambda id: (standing[id], others[id].val_loss, id))
    return tuple(dict.fromkeys(chosen))[: spec.final.top]


class Ranking:
    """The standings of a population, computed when they are first asked for after a change."""

    def __init__(self, goals: Sequence[str]) -> None:
        self._goals = goals
        self._at = -1
        self._standings: dict[int, Standing] = {}

    def __eq__(self, other: object) -> bool:
        """What was computed follows from the campaign's state, and is no part of it."""
        return isinstance(other, Ranking) and self._goals == other._goals

    def of(self, ends: Iterable[Ended], sequence: int) -> Mapping[int, Standing]:
        """The standings of `ends`, which are the population once `sequence` runs have ended."""
        if self._at != sequence:
            self._at, self._standings = sequence, standings(ends, self._goals)
        return self._standings
