"""Types of hidden states, inferred without running anything.

A state is laid out [batch, *branches, T, feature]. Its feature axis is one of four:

- CHANNELS: `size` multiples of d_model/8;
- COUNT: `size` scalars, whatever the width (a reduction leaves one, a router one an expert);
- ENTRIES: the `size` entries of a sparse state, each a value and an index below `domain`;
- KEYS: the T key positions of a product of two sequences, here called a state over S.

A state over S is open until MASK closes it. In a closed state only the visible entries, s <= t,
exist: elementwise ops keep it closed, and reductions and products over S range over visible entries
alone. On an open state they would read the future, so they are type errors. A program that has a
type is causal: output t depends on inputs up to t, and f(x[:t]) == f(x)[:t].

Inside a routed call positions are slots, places in an expert's buffer: tokens stand there in no
order that a program may use, so whatever works along the sequence is a type error, and nothing from
outside comes in but the tokens. A branch axis of n experts is written -n.

A rule maps input types to the result's type, or to a sentence that says why there is none.
"""

from __future__ import annotations

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

Inferred = StateType | str

MAX_DOMAIN = 1 << 22
"""Indices of a sparse state: product keys multiply, and 32-bit index arithmetic has an end."""


def buffer(branches: tuple[int, ...]) -> tuple[int, ...]:
    """The experts' buffer in which a state's positions lie: its branch axes up to the innermost
    routed call; () where positions are those of the sequence."""
    for depth in range(len(branches), 0, -1):
        if branches[depth - 1] < 0:
            return branches[:depth]
    return ()


def elementwise(x: StateType) -> Inferred:
    return x


def binary(x: StateType, y: StateType) -> Inferred:
    """Equal feature axes, or a single value on one side, which spreads over the other."""
    if buffer(x.branches) != buffer(y.branches):
        return f"positions differ: {x} and {y}"
    if (x.axis, x.size, x.domain) == (y.axis, y.size, y.domain):
        axis, size = x.axis, x.size
    elif x.axis == COUNT and x.size == 1:
        axis, size = y.axis, y.size
    elif y.axis == COUNT and y.size == 1:
        axis, size = x.axis, x.size
    else:
        return f"feature axes differ: {x} and {y}"
    return StateType(axis, size, _wider(x, y), x.closed or y.closed, x.domain or y.domain)


def sequence(x: StateType) -> Inferred:
    """Ops along the sequence that keep the type."""
    if x.axis == ENTRIES:
        return f"the indices of a sparse state differ from position to position: {x}"
    return _slots(x) or x


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
    if fault := _slots(x) or _slots(y) or _sparse(x) or _sparse(y):
        return fault
    if (x.axis, x.size) != (y.axis, y.size):
        return f"T-MAT MUL contracts feature axes that differ: {x} and {y}"
    if x.axis == KEYS and not (x.closed and y.closed):
        return "T-MAT MUL over open key positions reads the future; MASK both states first"
    return StateType(KEYS, 0, _wider(x, y))


def product(x: StateType, y: StateType) -> Inferred:
    """x [T, S] times y [S, n]: only visible positions of x take part."""
    if x.axis != KEYS:
        return f"MAT MUL needs its first input over key positions, got {x}"
    if fault := _slots(y) or _sparse(y):
        return fault
    if not x.closed:
        return "MAT MUL over open key positions reads the future; MASK the first input first"
    return StateType(y.axis, y.size, _wider(x, y), y.closed)


def per_channel(x: StateType, context: tuple[int, ...]) -> Inferred:
    """Ops with one weight a channel keep the feature axis."""
    return _unweighable(x, context) or StateType(x.axis, x.size, context)


def projection(axis: str, x: StateType, size: int, context: tuple[int, ...]) -> Inferred:
    """Ops with weights from every channel to `size` units of an axis."""
    return _unweighable(x, context) or StateType(axis, size, context)


def along(inferred: Inferred) -> Inferred:
    """Weighted ops over several positions."""
    return inferred if isinstance(inferred, str) else _slots(inferred) or inferred


def top_k(x: StateType, k: int) -> Inferred:
    """The k largest of a state over experts or entries, as a sparse state."""
    if x.axis not in (COUNT, ENTRIES):
        return f"top-k needs scores that a count sizes, or a sparse state, got {x}"
    if k > x.size:
        return f"top-k cannot take {k} of {x.size}"
    return StateType(ENTRIES, k, x.branches, domain=x.domain or x.size)


def chosen(x: StateType) -> Inferred:
    """One entry a position."""
    return _scores(x) or StateType(ENTRIES, 1, x.branches, domain=x.size)


def hashed(x: StateType, n: int) -> Inferred:
    return StateType(ENTRIES, 1, domain=n)


def take(x: StateType, g: StateType) -> Inferred:
    """x over n experts, read at the indices of g."""
    if x.axis != COUNT or g.axis != ENTRIES or x.size != g.domain:
        return f"TAKE reads scores over n experts at indices below n, got {x} and {g}"
    if buffer(x.branches) != buffer(g.branches):
        return f"positions differ: {x} and {g}"
    return StateType(ENTRIES, g.size, _wider(x, g), domain=g.domain)


def pair(x: StateType, y: StateType) -> Inferred:
    """Sums of all pairs, over the product of the domains: product keys (Lample et al. 2019)."""
    if x.axis != y.axis or x.axis not in (COUNT, ENTRIES):
        return f"PAIR joins two states over counts or two sparse ones, got {x} and {y}"
    if buffer(x.branches) != buffer(y.branches):
        return f"positions differ: {x} and {y}"
    domain = x.domain * y.domain or x.size * y.size
    if domain > MAX_DOMAIN:
        return f"PAIR would give {domain} indices; at most {MAX_DOMAIN}"
    branches = _wider(x, y)
    if x.axis == COUNT:
        return StateType(COUNT, domain, branches)
    return StateType(ENTRIES, x.size * y.size, branches, domain=domain)


def over_experts(x: StateType) -> Inferred:
    """Ops that keep scores over experts and look at the batch or at past batches."""
    return _scores(x) or x


def stateful(x: StateType, k: int, context: tuple[int, ...]) -> Inferred:
    """Scores with a state an expert that keeps k of them busy."""
    if fault := _scores(x) or _unweighable(x, context):
        return fault
    if k > x.size:
        return f"top-k cannot take {k} of {x.size}"
    return StateType(x.axis, x.size, context)


def noisy(x: StateType) -> Inferred:
    if x.axis == KEYS:
        return f"noise over key positions would differ with the sequence length, got {x}"
    return _slots(x) or x


def with_loss(x: StateType, y: StateType) -> Inferred:
    """x passes; the loss is of y, over experts or single values a position."""
    for state in (x, y):
        if fault := _slots(state):
            return fault
    if y.axis not in (COUNT, ENTRIES):
        return f"an auxiliary loss is of scores or gates over experts, got {y}"
    return x


def with_switch_loss(x: StateType, y: StateType) -> Inferred:
    if x.axis != ENTRIES or y.axis != COUNT or x.domain != y.size:
        return f"SWITCH_LOSS needs sparse gates and the scores they came from, got {x} and {y}"
    return with_loss(x, y)


def dispatch(x: StateType, gates: StateType, context: tuple[int, ...]) -> Inferred:
    """Tokens in the buffers of their experts."""
    if x.axis in (KEYS, ENTRIES):
        return f"a routed call takes tokens of channels, got {x}"
    if gates.axis not in (COUNT, ENTRIES):
        return f"a routed call takes gates over experts as input 2, got {gates}"
    if not buffer(x.branches) == buffer(gates.branches) == buffer(context):
        return f"a routed call takes tokens and gates of equal positions, got {x} and {gates}"
    if len(context) >= MAX_BRANCH_AXES:
        return f"branched calls nest {len(context) + 1} deep; at most {MAX_BRANCH_AXES}"
    return StateType(x.axis, x.size, (*context, -(gates.domain or gates.size)))


def combine(y: StateType, experts: tuple[int, ...]) -> Inferred:
    """What the experts, the branch axes around the callee, made of their tokens, summed by gate."""
    if y.axis not in (CHANNELS, COUNT) or y.branches != experts:
        return f"an expert must give channels made of its tokens, this one gives {y}"
    return StateType(y.axis, y.size, experts[:-1])


def concatenation(x: StateType, depth: int, branch: int) -> Inferred:
    """The results of `branch` runs, side by side on the feature axis; `depth` calls lie outside."""
    if x.axis == KEYS:
        return "a branched instruction must give channels; key positions cannot be concatenated"
    return StateType(x.axis, x.size * branch, x.branches[:depth], domain=x.domain)


def _unweighable(x: StateType, context: tuple[int, ...]) -> str | None:
    if x.axis == KEYS:
        return "weights over key positions would fix the sequence length"
    if x.axis == ENTRIES:
        return f"weights over a sparse state would belong to ranks, not to experts: {x}"
    if buffer(x.branches) != buffer(context):
        return f"an expert's weights act on its tokens, got {x}"
    if len(context) > MAX_BRANCH_AXES:
        return f"branched calls nest {len(context)} deep around a weight; at most {MAX_BRANCH_AXES}"
    return None


def _scores(x: StateType) -> str | None:
    if x.axis != COUNT:
        return f"needs scores over experts, got {x}"
    return _slots(x)


def _sparse(x: StateType) -> str | None:
    return f"a product needs channels, got {x}" if x.axis == ENTRIES else None


def _slots(x: StateType) -> str | None:
    if buffer(x.branches):
        return f"an expert's slots are not a sequence: {x}"
    return None


def _wider(x: StateType, y: StateType) -> tuple[int, ...]:
    return x.branches if len(x.branches) >= len(y.branches) else y.branches
