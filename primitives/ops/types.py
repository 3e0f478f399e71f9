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

In a bidirectional task every position may see every other one. There reductions and products over
an open state range over all positions: softmax over unmasked scores is attention to both sides. A
state that MASK closed has its visible entries alone, as everywhere.

Inside a routed call positions are slots, places in an expert's buffer: tokens stand there in no
order that a program may use, so whatever works along the sequence is a type error, and nothing from
outside comes in but the tokens. A branch axis of n experts is written -n.

A rule maps input types to the result's type, or to a Mismatch that says why there is none.
"""

from __future__ import annotations

from primitives.ops.state import (
    BLOCK,
    CHANNELS,
    COUNT,
    ENTRIES,
    KEYS,
    MAX_BRANCH_AXES,
    MAX_DOMAIN,
    Inferred,
    Mismatch,
    StateType,
    buffer,
)


def elementwise(x: StateType) -> Inferred:
    return x


def remembered(x: StateType) -> Inferred:
    """A state of the block's type: what a context is remembered by has d_model channels."""
    if x == BLOCK:
        return x
    return Mismatch("only a state of d_model channels can be remembered", f", not {x}")


def binary(x: StateType, y: StateType) -> Inferred:
    """Equal feature axes, or a single value on one side, which spreads over the other."""
    if buffer(x.branches) != buffer(y.branches):
        return _positions_differ(x, y)
    if (x.axis, x.size, x.domain) == (y.axis, y.size, y.domain):
        axis, size = x.axis, x.size
    elif x.axis == COUNT and x.size == 1:
        axis, size = y.axis, y.size
    elif y.axis == COUNT and y.size == 1:
        axis, size = x.axis, x.size
    else:
        return Mismatch("feature axes differ", f": {x} and {y}")
    return StateType(axis, size, _wider(x, y), x.closed or y.closed, x.domain or y.domain)


def sequence(x: StateType) -> Inferred:
    """Ops along the sequence that keep the type."""
    if x.axis == ENTRIES:
        return Mismatch("the indices of a sparse state differ from position to position", f": {x}")
    return _slots(x) or x


def mask(x: StateType) -> Inferred:
    if x.axis != KEYS:
        return Mismatch("MASK needs a state over key positions", f", got {x}")
    return StateType(x.axis, x.size, x.branches, closed=True)


def reduction(x: StateType, bidirectional: bool = False) -> Inferred:
    if _open(x) and not bidirectional:
        return _future("a reduction", "the state")
    return StateType(COUNT, 1, x.branches)


def transposed_product(x: StateType, y: StateType, bidirectional: bool = False) -> Inferred:
    """x [T, n] times y [T, n] transposed gives scores over S, still open."""
    if fault := _slots(x) or _slots(y) or _sparse(x) or _sparse(y):
        return fault
    if (x.axis, x.size) != (y.axis, y.size):
        return Mismatch("T-MAT MUL contracts feature axes that differ", f": {x} and {y}")
    if (_open(x) or _open(y)) and not bidirectional:
        return _future("T-MAT MUL", "both states")
    return StateType(KEYS, 0, _wider(x, y))


def product(x: StateType, y: StateType, bidirectional: bool = False) -> Inferred:
    """x [T, S] times y [S, n]: of a closed x, only visible positions take part. Where y is over key
    positions too, entry (t, u) sums x[t, s] y[s, u] over u <= s <= t if both are closed: it exists
    for u <= t alone, and the result is closed."""
    if x.axis != KEYS:
        return Mismatch("MAT MUL needs its first input over key positions", f", got {x}")
    if fault := _slots(y) or _sparse(y):
        return fault
    if _open(x) and not bidirectional:
        return _future("MAT MUL", "the first input")
    return StateType(y.axis, y.size, _wider(x, y), x.closed and y.closed)


def per_channel(x: StateType, context: tuple[int, ...]) -> Inferred:
    """Ops with one weight a channel keep the feature axis."""
    return _unweighable(x, context) or StateType(x.axis, x.size, _around(x, context))


def projection(axis: str, x: StateType, size: int, context: tuple[int, ...]) -> Inferred:
    """Ops with weights from every channel to `size` units of an axis."""
    return _unweighable(x, context) or StateType(axis, size, _around(x, context))


def along(inferred: Inferred) -> Inferred:
    """Weighted ops over several positions."""
    return inferred if isinstance(inferred, Mismatch) else _slots(inferred) or inferred


def top_k(x: StateType, k: int) -> Inferred:
    """The k largest of a state over experts or entries, as a sparse state."""
    if x.axis not in (COUNT, ENTRIES):
        return Mismatch("top-k needs scores that a count sizes, or a sparse state", f", got {x}")
    if k > x.size:
        return _too_few(x, k)
    return StateType(ENTRIES, k, x.branches, domain=x.domain or x.size)


def chosen(x: StateType) -> Inferred:
    """One entry a position."""
    return _scores(x) or StateType(ENTRIES, 1, x.branches, domain=x.size)


def hashed(x: StateType, n: int) -> Inferred:
    return StateType(ENTRIES, 1, domain=n)


def take(x: StateType, g: StateType) -> Inferred:
    """x over n experts, read at the indices of g."""
    if x.axis != COUNT or g.axis != ENTRIES or x.size != g.domain:
        return Mismatch("TAKE reads scores over n experts at indices below n", f", got {x} and {g}")
    if buffer(x.branches) != buffer(g.branches):
        return _positions_differ(x, g)
    return StateType(ENTRIES, g.size, _wider(x, g), domain=g.domain)


def pair(x: StateType, y: StateType) -> Inferred:
    """Sums of all pairs, over the product of the domains: product keys (Lample et al. 2019)."""
    if x.axis != y.axis or x.axis not in (COUNT, ENTRIES):
        kind = "PAIR joins two states over counts or two sparse ones"
        return Mismatch(kind, f", got {x} and {y}")
    if buffer(x.branches) != buffer(y.branches):
        return _positions_differ(x, y)
    domain = x.domain * y.domain or x.size * y.size
    if domain > MAX_DOMAIN:
        return Mismatch("PAIR would give too many indices", f": {domain}; at most {MAX_DOMAIN}")
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
    if len(x.branches) > len(context):
        kind = "branches that differ cannot share a state that each would move"
        return Mismatch(kind, f": {x}")
    if k > x.size:
        return _too_few(x, k)
    return StateType(x.axis, x.size, context)


def counted(x: StateType, context: tuple[int, ...]) -> Inferred:
    """A number that is the same at all positions, with a state of its own."""
    return _unweighable(x, context) or _slots(x) or StateType(COUNT, 1, context)


def placed(x: StateType, n: int) -> Inferred:
    if x.axis == KEYS:
        return Mismatch("needs positions of a sequence, not pairs of them", f", got {x}")
    return _slots(x) or StateType(COUNT, n, x.branches)


def limited(x: StateType) -> Inferred:
    """Entries of a sparse state, of which those of other positions decide."""
    if x.axis != ENTRIES:
        return Mismatch("needs a sparse state of gates", f", got {x}")
    return _slots(x) or x


def noisy(x: StateType) -> Inferred:
    if x.axis == KEYS:
        return Mismatch("noise over key positions would differ with the sequence length")
    return _slots(x) or x


def with_loss(x: StateType, y: StateType) -> Inferred:
    """x passes; the loss is of y, over experts or single values a position."""
    for state in (x, y):
        if fault := _slots(state):
            return fault
    if y.axis not in (COUNT, ENTRIES):
        return Mismatch("an auxiliary loss is of scores or gates over experts", f", got {y}")
    return x


def with_switch_loss(x: StateType, y: StateType) -> Inferred:
    if x.axis != ENTRIES or y.axis != COUNT or x.domain != y.size:
        kind = "SWITCH_LOSS needs sparse gates and the scores they came from"
        return Mismatch(kind, f", got {x} and {y}")
    return with_loss(x, y)


def dispatch(x: StateType, gates: StateType, context: tuple[int, ...]) -> Inferred:
    """Tokens in the buffers of their experts."""
    if x.axis in (KEYS, ENTRIES):
        return Mismatch("a routed call takes tokens of channels", f", got {x}")
    if gates.axis not in (COUNT, ENTRIES):
        return Mismatch("a routed call takes gates over experts as input 2", f", got {gates}")
    if not buffer(x.branches) == buffer(gates.branches) == buffer(context):
        kind = "a routed call takes tokens and gates of equal positions"
        return Mismatch(kind, f", got {x} and {gates}")
    if len(context) >= MAX_BRANCH_AXES:
        return _too_deep(len(context) + 1)
    return StateType(x.axis, x.size, (*context, -(gates.domain or gates.size)))


def combine(y: StateType, experts: tuple[int, ...]) -> Inferred:
    """What the experts, the branch axes around the callee, made of their tokens, summed by gate."""
    if y.axis not in (CHANNELS, COUNT) or y.branches != experts:
        return Mismatch("an expert must give channels made of its tokens", f", this one gives {y}")
    return StateType(y.axis, y.size, experts[:-1])


def shared(context: tuple[int, ...]) -> tuple[int, ...] | Mismatch:
    """The branch axes of weights that the branches of the innermost call around share."""
    if context and context[-1] < 0:
        return Mismatch("experts cannot share a weight", "; apply it before the routed call")
    return context[:-1]


def concatenation(x: StateType, depth: int, branch: int) -> Inferred:
    """The results of `branch` runs, side by side on the feature axis; `depth` calls lie outside."""
    if x.axis == KEYS:
        kind = "a branched instruction must give channels"
        return Mismatch(kind, "; key positions cannot be concatenated")
    return StateType(x.axis, x.size * branch, x.branches[:depth], domain=x.domain)


def _positions_differ(x: StateType, y: StateType) -> Mismatch:
    return Mismatch("positions differ", f": {x} and {y}")


def _too_few(x: StateType, k: int) -> Mismatch:
    return Mismatch("top-k cannot take more than there are", f": {k} of {x.size}")


def _too_deep(depth: int) -> Mismatch:
    return Mismatch("branched calls nest too deep", f": {depth} axes; at most {MAX_BRANCH_AXES}")


def _future(what: str, masked: str) -> Mismatch:
    kind = f"{what} over open key positions reads the future"
    return Mismatch(kind, f"; MASK {masked} first")


def _open(x: StateType) -> bool:
    return x.axis == KEYS and not x.closed


def _unweighable(x: StateType, context: tuple[int, ...]) -> Mismatch | None:
    if x.axis == KEYS:
        return Mismatch("weights over key positions would fix the sequence length")
    if x.axis == ENTRIES:
        kind = "weights over a sparse state would belong to ranks, not to experts"
        return Mismatch(kind, f": {x}")
    if buffer(x.branches) != buffer(context):
        return Mismatch("an expert's weights act on its tokens", f", got {x}")
    if buffer(context) and len(x.branches) > len(context):
        kind = "branches inside an expert cannot share a weight for states that differ"
        return Mismatch(kind, f": {x}")
    return _too_deep(len(context)) if len(context) > MAX_BRANCH_AXES else None


def _around(x: StateType, context: tuple[int, ...]) -> tuple[int, ...]:
    """The branch axes of what a weight of this context makes of x: where branches share the weight,
    x may have axes that it has not."""
    return context if len(context) >= len(x.branches) else x.branches


def _scores(x: StateType) -> Mismatch | None:
    if x.axis != COUNT:
        return Mismatch("needs scores over experts", f", got {x}")
    return _slots(x)


def _sparse(x: StateType) -> Mismatch | None:
    return Mismatch("a product needs channels", f", got {x}") if x.axis == ENTRIES else None


def _slots(x: StateType) -> Mismatch | None:
    if buffer(x.branches):
        return Mismatch("an expert's slots are not a sequence", f": {x}")
    return None


def _wider(x: StateType, y: StateType) -> tuple[int, ...]:
    """The branch axes of a result of both: those of one input are a prefix of the other's."""
    return x.branches if len(x.branches) >= len(y.branches) else y.branches
