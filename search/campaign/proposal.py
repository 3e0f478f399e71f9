"""The next candidate: a fit parent, mutated until a child passes the gates.

All randomness comes from (campaign seed, candidate number), so that a resumed campaign proposes
what an uninterrupted one does.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from primitives.language.dna import DNA
from search.campaign.gates import Child, Parent, Rejected, Reuse, Rules, judge
from search.errors import PrimevoError
from search.evolution.mutation import mutate

TRIES = 100
"""Children of one parent that are refused before another parent is drawn."""

PARENTS = 100
"""Parents that are drawn before the search is given up."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A child that passed the gates. `original` is the candidate whose outcome it takes over, if
    any. Else `behaviour` is what it does, where the campaign asks for that. `rejections` counts the
    children that were refused before it, by reason."""

    parent_id: int
    mutation: str
    dna: DNA
    hash: str
    behaviour: str | None
    original: int | None
    rejections: dict[str, int]


class ProgramCache:
    """Parsed programs by candidate: the latest used are kept, others read again when asked for."""

    def __init__(self, load: Callable[[int], DNA], capacity: int) -> None:
        self._load, self._capacity = load, capacity
        self._known: OrderedDict[int, DNA] = OrderedDict()

    def __getitem__(self, id: int) -> DNA:
        if id not in self._known:
            self[id] = self._load(id)
        self._known.move_to_end(id)
        return self._known[id]

    def __setitem__(self, id: int, dna: DNA) -> None:
        self._known[id] = dna
        if len(self._known) > self._capacity:
            self._known.popitem(last=False)


def derive(seed: int, *names: object) -> int:
    """A 31-bit number for a named use of randomness in a campaign."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) >> 1


def final_seed(seed: int, index: int) -> int:
    """The seed of each finalist's run number `index`, from 0, in a campaign of this seed."""
    return derive(seed, "final", index)


def propose(rules: Rules, programs: ProgramCache, rng: Random) -> Proposal:
    """One child from the population of `rules.state`; a PrimevoError where none can be had."""
    spec = rules.state.spec
    rejections: Counter[str] = Counter()
    for _ in range(PARENTS):
        member = rules.state.parent(rng)
        known = rules.state
        parent = Parent(
            programs[member.id], known.hashes[member.id], known.behaviour_of.get(member.id)
        )
        for _ in range(TRIES):
            mutated, mutation = mutate(parent.dna, rng, spec.mutations)
            child = Child(mutated, parent, rules.task)
            verdict = judge(child, rules)
            if isinstance(verdict, Rejected):
                rejections[verdict.reason] += 1
                continue
            original = verdict.original if isinstance(verdict, Reuse) else None
            return Proposal(
                member.id, mutation, mutated, child.graph.hash,
                child.behaviour if original is None and spec.compares_behaviour else None,
                original, dict(rejections),
            )  # fmt: skip
    commonest = ", ".join(f"{reason} ({n})" for reason, n in rejections.most_common(3))
    raise PrimevoError(
        f"no child passed the gates in {TRIES * PARENTS} tries: {commonest}; widen search.limits, "
        "or allow more of search.mutations"
    )
