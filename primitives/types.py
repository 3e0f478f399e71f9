"""Types of hidden states, inferred without running anything.

A state is laid out [batch, *branches, T, feature]. Its feature axis is one of three:

- CHANNELS: `size` multiples of d_model/8;
- COUNT: `size` scalars, whatever the width (a reduction leaves one);
- KEYS: the T key positions of a product of two sequences, here called a state over S.

A state over S is open until MASK closes it. In a closed state only the visible entries, s <= t,
exist: elementwise ops keep it closed, and reductions and products over S range over visible entries
alone. On an open state they would read the future, so they are type errors. A program that has a
type is causal: output t depends on inputs up to t, and f(x[:t]) == f(x)[:t].

A rule maps input types to the result's type, or to a sentence that says why there is none.
"""

from __future__ import annotations

from typing import ClassVar, final

CHANNELS = "C"
COUNT = "1"
KEYS = "S"

UNITS_PER_WIDTH = 8
"""d_model is this many units: sizes on the CHANNELS axis count eighths of it."""


@final
class StateType:
    """Feature axis and its size, branch axes from the outermost call inwards, and whether a state
    over S is closed. Branch axes are a prefix of those of the calls around the instruction: a
    state that does not differ between branches does not have their axis.

    Equal types are one object, so that comparing and hashing them, which inference does for every
    instruction of every candidate, costs nothing.
    """

    __slots__ = ("axis", "branches", "closed", "size")
    _known: ClassVar[dict[tuple[str, int, tuple[int, ...], bool], StateType]] = {}

    axis: str
    size: int
    branches: tuple[int, ...]
    closed: bool

    def __new__(
        cls, axis: str, size: int, branches: tuple[int, ...] = (), closed: bool = False
    ) -> StateType:
        key = (axis, size, branches, closed)
        made = cls._known.get(key)
        if made is None:
            made = cls._known[key] = super().__new__(cls)
            for name, value in zip(("axis", "size", "branches", "closed"), key, strict=True):
                object.__setattr__(made, name, value)
        return made

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a StateType is fixed; {name} cannot be set")

    def __reduce__(self) -> tuple[type[StateType], tuple[object, ...]]:
        return StateType, (self.axis, self.size, self.branches, self.closed)

    def __repr__(self) -> str:
        return f"StateType{self.__reduce__()[1]}"

    def __str__(self) -> str:
        if self.axis == KEYS:
            feature = "S closed" if self.closed else "S open"
        elif self.axis == COUNT:
            feature = str(self.size)
        else:
            feature = f"{self.size}/8 d_model"
        heads = "".join(f"{n} x " for n in self.branches)
        return f"[{heads}T, {feature}]"


MAX_BRANCH_AXES = 4
"""Branch axes of an array: with batch, T and features it stays within what backends' ops take."""

BLOCK = StateType(CHANNELS, UNITS_PER_WIDTH)
"""The block's input and output: [T, d_model]."""

Inferred = StateType | str


def elementwise(x: StateType) -> Inferred:
    return x


def binary(x: StateType, y: StateType) -> Inferred:
    """Equal feature axes, or a single value on one side, which spreads over the other."""
    if x.axis == y.axis and x.size == y.size:
        axis, size = x.axis, x.size
    elif x.axis == COUNT and x.size == 1:
        axis, size = y.axis, y.size
    elif y.axis == COUNT and y.size == 1:
        axis, size = x.axis, x.size
    else:
        return f"feature axes differ: {x} and {y}"
    return StateType(axis, size, _wider(x, y), x.closed or y.closed)


def mask(x: StateType) -> Inferred:
    if x.axis != KEYS:
        return f"MASK needs a state over key positions, got {x}"
    return StateType(x.axis, x.size, x.branches, closed=True)


def reduction(x: StateType) -> Inferred:
    if x.axis == KEYS and not x.closed:
        return "a reduction over open key positions reads the future; MASK the state first"
    return StateType(COUNT, 1, x.branches)


def transposed_product(x: StateType, y: StateType) -> Inferred:
    """x [T, n] times y [T, n] transposed gives scores over S, still open."""
    if (x.axis, x.size) != (y.axis, y.size):
        return f"T-MAT MUL contracts feature axes that differ: {x} and {y}"
    if x.axis == KEYS and not (x.closed and y.closed):
        return "T-MAT MUL over open key positions reads the future; MASK both states first"
    return StateType(KEYS, 0, _wider(x, y))


def product(x: StateType, y: StateType) -> Inferred:
    """x [T, S] times y [S, n]: only visible positions of x take part."""
    if x.axis != KEYS:
        return f"MAT MUL needs its first input over key positions, got {x}"
    if not x.closed:
        return "MAT MUL over open key positions reads the future; MASK the first input first"
    return StateType(y.axis, y.size, _wider(x, y), y.closed)


def per_channel(x: StateType, context: tuple[int, ...]) -> Inferred:
    """Ops with one weight a channel keep the feature axis."""
    return _unweighable(x, context) or StateType(x.axis, x.size, context)


def projection(x: StateType, dim: int, context: tuple[int, ...]) -> Inferred:
    """Ops with weights from every channel to `dim` units."""
    return _unweighable(x, context) or StateType(CHANNELS, dim, context)


def concatenation(x: StateType, depth: int, branch: int) -> Inferred:
    """The results of `branch` runs, side by side on the feature axis; `depth` calls lie outside."""
    if x.axis == KEYS:
        return "a branched instruction must give channels; key positions cannot be concatenated"
    return StateType(x.axis, x.size * branch, x.branches[:depth])


def _unweighable(x: StateType, context: tuple[int, ...]) -> str | None:
    if x.axis == KEYS:
        return "weights over key positions would fix the sequence length"
    if len(context) > MAX_BRANCH_AXES:
        return f"branched calls nest {len(context)} deep around a weight; at most {MAX_BRANCH_AXES}"
    return None


def _wider(x: StateType, y: StateType) -> tuple[int, ...]:
    return x.branches if len(x.branches) >= len(y.branches) else y.branches
