"""A campaign derived again from its log: config, seed, and the order in which runs ended.

The recorded endings are taken as they are. Every candidate is proposed again by the controller's
own proposer, in the state in which the controller proposed it, and compared with what was recorded.
Nothing is written, and a campaign that is running is replayed as far as it has come.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from sqlalchemy import select

from primitives.language.text import render
from search.campaign.history import State
from search.campaign.proposal import ProgramCache, derive, final_seed
from search.campaign.proposer import Candidate as Derived
from search.campaign.proposer import Proposer, taken_over
from search.campaign.queries import stored_program
from search.campaign.version import deciding, differences
from search.config.plugins import stored_config
from search.errors import PrimevoError
from search.storage.events import Ended, Proposed
from search.storage.models import Candidate, Evaluation
from search.storage.store import CampaignRow, Store

_CHUNK = 500
"""Programs that are read at a time."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """How many candidates came out as recorded; `difference` says in a line what the first one that
    did not differs in, and is None where there is none. `notes` name what has changed since the
    campaign was recorded: the version of the code, of a plug-in, a mutation's weight."""

    candidates: int
    difference: str | None
    notes: tuple[str, ...]


def replay(store: Store, name: str) -> Replayed:
    """Derives the campaign again. A NotFoundError where there is none of that name; a StoreError
    where its rows cannot be read."""
    campaign = store.campaign(name)
    config = stored_config(campaign.config, name)
    notes = tuple(_changes(campaign.versions, deciding(config)))
    with store.understanding():
        found = _Replay(store, campaign).run()
    return Replayed(*found, notes)


def _changes(recorded: Sequence[Mapping[str, object]], now: Mapping[str, str]) -> Iterator[str]:
    """What differs from now in each of the versions that proposed some of the candidates."""
    if not recorded:
        yield "the version that recorded this campaign was not noted: it was an earlier one"
    for entry in recorded:
        versions = entry["versions"]
        assert isinstance(versions, Mapping)
        for line in differences(versions, now):
            yield f"from candidate {entry['first']} on: {line}"


class _Differs(Exception):
    """What was recorded is not what is derived; the message says where."""


class _Replay:
    """One pass over the log. `_waiting` holds the recorded endings that are still to come, the next
    one last."""

    def __init__(self, store: Store, campaign: CampaignRow) -> None:
        self._store, self._campaign = store, campaign
        self._config = stored_config(campaign.config, campaign.name)
        events = list(store.events(campaign.id, self._config.search.goals))
        self._proposed = [event for event in events if isinstance(event, Proposed)]
        self._waiting = [event for event in events if isinstance(event, Ended)][::-1]
        self._ended = len(self._waiting)
        spec = self._config.search
        self._state = State(spec)
        self._programs = ProgramCache(
            lambda number: stored_program(store, campaign, number), 2 * spec.population + 1
        )
        self._proposer = Proposer(self._config, campaign.seed, self._state, self._programs)

    def run(self) -> tuple[int, str | None]:
        """How many candidates are as recorded, and what the first difference is."""
        same = 0
        try:
            derived = self._derived()
            for event, text in zip(self._in_order(), self._texts(), strict=False):
                self._compare(event, text, next(derived))
                same += 1
            self._end_runs(self._ended)
        except _Differs as difference:
            return same, str(difference)
        return same, None

    def _in_order(self) -> Iterator[Proposed]:
        """The recorded proposals, each when the endings before it have been applied. Of a campaign
        that runs, proposals may be there that came after the last ending that was read."""
        moments = self._moments() if any(e.endings is None for e in self._proposed) else {}
        for event in self._proposed:
            endings = moments.get(event.id) if event.endings is None else event.endings
            assert endings is not None
            if endings > self._ended:
                return
            self._end_runs(endings)
            if endings < self._state.sequence:
                raise _Differs(
                    f"candidate {event.id} was proposed after {endings} endings, but "
                    f"{self._state.sequence} came before it"
                )
            yield event._replace(endings=endings)

    def _derived(self) -> Iterator[Derived]:
        """What the stored code proposes, in the state of the moment."""
        try:
            yield from self._proposer.seeds()
            while True:
                yield self._proposer.child()
        except PrimevoError as error:
            number = self._state.candidates + 1
            raise _Differs(f"candidate {number} cannot be proposed again: {error}") from None

    def _compare(self, event: Proposed, text: str, derived: Derived) -> None:
        """Raises _Differs at the first field that is not as derived; applies the event."""
        expected = derived.event
        for field in ("id", "parent_id", "mutation", "hash", "duplicate_of", "rejections"):
            recorded, again = getattr(event, field), getattr(expected, field)
            if recorded != again:
                raise _Differs(
                    f"candidate {event.id}: its {field} is recorded as {_shown(recorded)} and "
                    f"derived as {_shown(again)}"
                )
        if text != (again := render(derived.dna)):
            raise _Differs(f"candidate {event.id}: its program differs: {_first_line(text, again)}")
        self._programs[event.id] = derived.dna
        self._state.apply(event)
        if (copy := taken_over(event, self._state)) is not None:
            self._end_runs(copy.sequence, expected=copy)

    def _end_runs(self, until: int, expected: Ended | None = None) -> None:
        """Applies the recorded endings up to number `until`; the last must be the expected one."""
        while self._state.sequence < until and self._waiting:
            end = self._waiting.pop()
            self._check(end, expected if end.sequence == until else None)
            self._state.apply(end)

    def _check(self, end: Ended, expected: Ended | None) -> None:
        """The ending of a run that the campaign had, under its seed."""
        state, seed, what = self._state, self._campaign.seed, f"evaluation {end.sequence}"
        if end.sequence != state.sequence + 1:
            raise _Differs(f"evaluation {state.sequence + 1} is missing")
        if expected is not None:
            if end != expected:
                raise _Differs(
                    f"{what} should be the outcome of candidate {expected.id}, taken over from "
                    f"its original, and is another one"
                )
            return
        if end.kind == "final":
            wanted = {final_seed(seed, index) for index in range(state.spec.final.seeds)}
            known = state.searched and end.id in state.finalists
        else:
            wanted = {derive(seed, end.id)}
            known = end.id in state.pending or end.id in state.rungs
        if not known:
            raise _Differs(f"{what} ends a run of candidate {end.id}, which had none to end")
        if end.seed not in wanted:
            raise _Differs(f"{what}: candidate {end.id} was trained with another seed, {end.seed}")

    def _texts(self) -> Iterator[str]:
        """The recorded programs, in order, read in parts."""
        own = Candidate.campaign_id == self._campaign.id
        last = 0
        while True:
            statement = select(Candidate.id, Candidate.dna).where(own, Candidate.id > last)
            with self._store.reading() as connection:
                rows = connection.execute(statement.order_by(Candidate.id).limit(_CHUNK)).all()
            if not rows:
                return
            last = rows[-1].id
            yield from (row.dna for row in rows)

    def _moments(self) -> dict[int, int]:
        """How many runs had ended when each candidate was proposed, from the times in the rows: the
        first versions recorded nothing else. What ends and what is then proposed share a time."""
        campaign = self._campaign.id
        with self._store.reading() as connection:
            proposed = connection.execute(
                select(Candidate.id, Candidate.created_at)
                .where(Candidate.campaign_id == campaign)
                .order_by(Candidate.id)
            ).all()
            ended = connection.execute(
                select(Evaluation.candidate_id, Evaluation.finished_at)
                .where(Evaluation.campaign_id == campaign, Evaluation.sequence <= self._ended)
                .order_by(Evaluation.sequence)
            ).all()
        moments, before = dict[int, int](), 0
        for id, at in proposed:
            while before < len(ended) and _earlier(ended[before], (id, at)):
                before += 1
            moments[id] = before
        return moments


def _earlier(ended: Iterable[float], proposed: tuple[int, float]) -> bool:
    """Whether a run of (candidate, time) ended before a candidate was proposed."""
    (of, ended_at), (id, proposed_at) = ended, proposed
    return ended_at < proposed_at or (ended_at == proposed_at and of < id)


def _shown(value: object) -> str:
    text = str(dict(value)) if isinstance(value, Mapping) else str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _first_line(recorded: str, derived: str) -> str:
    """The first line in which two texts differ."""
    pairs = zip_longest(recorded.splitlines(), derived.splitlines(), fillvalue="nothing")
    for number, (old, new) in enumerate(pairs, 1):
        if old != new:
            return f"line {number} is recorded as {_shown(old)!r} and derived as {_shown(new)!r}"
    return "in the ends of its lines"
