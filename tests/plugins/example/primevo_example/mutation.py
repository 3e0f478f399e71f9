"""A mutation of how often an instruction is branched."""

from __future__ import annotations

import random
from dataclasses import replace

from primitives.language.dna import DNA
from search.evolution.mutation import MUTATIONS, Mutation


def fold(dna: DNA, rng: random.Random) -> DNA:
    """Sets `branch` of a random instruction to 1, or to 8 where it is 1."""
    index = rng.randrange(len(dna.subroutines))
    subroutine = dna.subroutines[index]
    rows = list(subroutine.instructions)
    place = rng.randrange(len(rows))
    rows[place] = rows[place]._replace(branch=8 if rows[place].branch == 1 else 1)
    changed = replace(subroutine, instructions=tuple(rows))
    rest = dna.subroutines[index + 1 :]
    return replace(dna, subroutines=(*dna.subroutines[:index], changed, *rest))


FOLD = Mutation(
    name="fold",
    change=fold,
    meaning="the branches of an instruction become one, or one becomes eight",
)


def register() -> None:
    MUTATIONS.register(FOLD)
