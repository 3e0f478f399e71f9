"""The type of a hidden state, and why there may be none (`types` has the rules that infer them)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

CHANNELS = "C"
COUNT = "1"
KEYS = "S"
ENTRIES = "K"

UNITS_PER_WIDTH = 8
"""d_model is this many units: sizes on the CHANNELS axis count eighths of it."""


@final
class StateType:
    """Feature axis and its size, branch axes from the outermost call inwards, whether a state over
    S is closed, and the domain of a sparse state's indices. Branch axes are a prefix of those of
    the calls around the instruction: a state that does not differ between branches does not have
    their axis.

    Equal types are one object, so that comparing and hashing them, which inference does for every
    instruction of every candidate, costs nothing.
    """

    __slots__ = ("axis", "branches", "closed", "domain", "size")
    _known: ClassVar[dict[tuple[str, int, tuple[int, ...], bool, int], StateType]] = {}

    axis: str
    size: int
    branches: tuple[int, ...]
    closed: bool
    domain: int

    def __new__(
        cls,
        axis: str,
        size: int,
        branches: tuple[int, ...] = (),
        closed: bool = False,
        domain: int = 0,
    ) -> StateType:
        key = (axis, size, branches, closed, domain)
        made = cls._known.get(key)
        if made is None:
            made = cls._known[key] = super().__new__(cls)
            for name, value in zip(_FIELDS, key, strict=True):
                object.__setattr__(made, name, value)
        return made

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a StateType is fixed; {name} cannot be set")

    def __reduce__(self) -> tuple[type[StateType], tuple[object, ...]]:
        return StateType, tuple(getattr(self, name) for name in _FIELDS)

    def __repr__(self) -> str:
        return f"StateType{self.__reduce__()[1]}"

    def __str__(self) -> str:
        if self.axis == KEYS:
            feature = "S closed" if self.closed else "S open"
        elif self.axis == COUNT:
            feature = str(self.size)
        elif self.axis == ENTRIES:
            feature = f"{self.size} of {self.domain}"
        else:
            feature = f"{self.size}/8 d_model"
        heads = "".join(f"{n} x " if n > 0 else f"{-n} experts x " for n in self.branches)
        return f"[{heads}{'slots' if buffer(self.branches) else 'T'}, {feature}]"


_FIELDS = ("axis", "size", "branches", "closed", "domain")


MAX_BRANCH_AXES = 4
"""Branch axes of an array: with batch, T and features it stays within what backends' ops take."""

BLOCK = StateType(CHANNELS, UNITS_PER_WIDTH)
"""The block's input and output: [T, d_model]."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why a primitive has no type on its inputs.

    Attributes:
        kind: what is wrong, in words that do not depend on the case, so that they can be counted:
            "feature axes differ".
        detail: the rest of the sentence, its punctuation included: ": [T, 8/8 d_model] and [T, 2]".
            Empty where the kind says it all.
    """

    kind: str
    detail: str = ""

    def __str__(self) -> str:
        return self.kind + self.detail


Inferred = StateType | Mismatch

MAX_DOMAIN = 1 << 22
"""Indices of a sparse state: product keys multiply, and 32-bit index arithmetic has an end."""


def buffer(branches: tuple[int, ...]) -> tuple[int, ...]:
    """The experts' buffer in which a state's positions lie: its branch axes up to the innermost
    routed call; () where positions are those of the sequence."""
    for depth in range(len(branches), 0, -1):
        if branches[depth - 1] < 0:
            return branches[:depth]
    return ()
