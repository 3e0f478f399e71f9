"""Names that hidden states are given where nobody chose one: after their op, `dconv_3x1`, or after
the subroutine that they call, with a number where that is taken, `dconv_3x1_2`."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache

from primitives.language.dna import DNA, Subroutine
from primitives.ops.table import PRIMITIVES

_NUMBER = re.compile(r"_[0-9]+\Z")


def derived(op: str | int, subroutines: tuple[Subroutine, ...]) -> str:
    """The name after an op, without a number."""
    return subroutines[op].name if isinstance(op, int) else _word(op)


def fresh(name: str, taken: Collection[str]) -> str:
    """The name, with the first number from 2 on that makes it differ from those taken."""
    made, count = name, 1
    while made in taken:
        count += 1
        made = f"{name}_{count}"
    return made


def stale(name: str, op: str | int, dna: DNA) -> bool:
    """Whether a state's name was derived from another op than its own: it is that of a primitive or
    of a subroutine, with or without a number, and not that of `op`.

    Names that a person chose (`query`, `wide`) are kept, as nothing tells what they were given for.
    """
    own, bases = derived(op, dna.subroutines), {name, _NUMBER.sub("", name)}
    if own in bases:
        return False
    known = {_word(primitive) for primitive in PRIMITIVES}
    return not bases.isdisjoint(known | {each.name for each in dna.subroutines})


@lru_cache(maxsize=1024)
def _word(op: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", op.lower())
