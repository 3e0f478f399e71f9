"""Regularised evolution: who founds, who breeds, who goes."""

from __future__ import annotations

from collections import Counter
from random import Random

from search.evolution.population import Member, admit, founders, tournament


def test_founders_are_copies_of_the_seeds_in_turn() -> None:
    a, b = Member(1, 2.0), Member(2, 3.0)
    assert list(founders([a, b], 5)) == [a, b, a, b, a]


def test_the_oldest_goes_however_good_it_is() -> None:
    population = founders([Member(1, 0.5)], 3)
    for id in (2, 3, 4):
        admit(population, Member(id, 9.0))
    assert [member.id for member in population] == [2, 3, 4]


def test_the_fittest_of_the_sample_wins() -> None:
    population = founders([Member(id, 101.0 - id) for id in range(1, 101)], 100)
    winners = [tournament(population, 10, Random(seed)).fitness for seed in range(2000)]
    assert (
        7 < sum(winners) / len(winners) < 12
    )  # the least of 10 draws from 1..100 is 9.6 on average
    assert tournament(population, 10, Random(3)) == tournament(population, 10, Random(3))


def test_a_tournament_of_one_is_uniform() -> None:
    population = founders([Member(id, float(id)) for id in range(4)], 4)
    rng = Random(0)
    counts = Counter(tournament(population, 1, rng).id for _ in range(4000))
    assert all(850 < counts[id] < 1150 for id in range(4))


def test_ties_go_to_the_first_drawn() -> None:
    population = founders([Member(1, 1.0), Member(2, 1.0)], 2)
    drawn = Random(5).choices(population, k=4)
    assert tournament(population, 4, Random(5)) == drawn[0]
