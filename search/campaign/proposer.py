"""What comes next in a campaign, from its config, its seed and its state alone.

The controller records what a proposer gives; `replay` asks another one again, in the same states.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from random import Random
from typing import NamedTuple

from primitives.language.dna import DNA
from search.campaign.gates import Limits, Rules, task_cost
from search.campaign.history import State
from search.campaign.proposal import ProgramCache, propose
from search.config.programfile import checked, load_program, spaced, title_of
from search.config.schema import CampaignConfig
from search.errors import UsageError
from search.storage.events import Ended, Proposed
from workers.spec import fit


class Candidate(NamedTuple):
    """A program that is to be recorded, as the event `event`."""

    dna: DNA
    event: Proposed


class Proposer:
    """Proposes the candidates of one campaign. It reads `state`, and changes nothing: whoever asks
    applies what was proposed. `programs` holds the candidates proposed so far."""

    def __init__(
        self, config: CampaignConfig, seed: int, state: State, programs: ProgramCache
    ) -> None:
        self._config, self._seed = config, seed
        self._state, self._programs = state, programs

    def seeds(self) -> Iterator[Candidate]:
        """The seed programs, which are the first candidates. Raises a UsageError where one cannot
        be read, or where two are one program."""
        known: dict[str, str] = {}
        d_model = self._config.task.model.d_model
        for number, name in enumerate(self._config.search.seeds, 1):
            dna = spaced(load_program(name, d_model)[1], self._config.search.every)
            name = title_of(name)
            graph = checked(dna, name, self._config.task)
            if graph.hash in known:
                twin = known[graph.hash]
                raise UsageError(f"search.seeds: {name} and {twin} are one program; leave one out")
            known[graph.hash] = name
            asked = self._config.search.compares_behaviour
            does = fit.behaviour(graph, self._config.task) if asked else None
            yield Candidate(dna, Proposed(number, None, "seed", graph.hash, None, {}, 0, does))

    def child(self) -> Candidate:
        """The next child; a PrimevoError where none passes the gates. All randomness comes from
        the campaign's seed and the child's number."""
        number = self._state.candidates + 1
        made = propose(self.rules, self._programs, Random(f"{self._seed}/{number}"))
        return Candidate(
            made.dna,
            Proposed(
                number, made.parent_id, made.mutation, made.hash, made.original, made.rejections,
                self._state.sequence, made.behaviour,
            ),
        )  # fmt: skip

    @cached_property
    def rules(self) -> Rules:
        """What children are judged by. The first seed program has to be among the programs."""
        task = self._config.task
        cost = task_cost(checked(self._programs[1], "the first seed program", task), task)
        limits = Limits.relative_to(cost, self._config.search.limits)
        return Rules(limits, task, self._state)


def taken_over(event: Proposed, state: State) -> Ended | None:
    """The ending of a candidate whose outcome is known when it is proposed; None for one that is to
    be trained."""
    if event.duplicate_of is None:
        return None
    twin = state.results[event.duplicate_of]
    return twin._replace(sequence=state.sequence + 1, id=event.id)
