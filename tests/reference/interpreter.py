"""What a program means, said a second time: a slow interpreter in NumPy, for tests to compare with.

It runs the DNA as written, instruction by instruction, every head of a branched instruction by
itself, and reads a state only when something asks for it. It infers no types, rewrites nothing and
knows nothing of `graph`, `emit` or `kernels`. Invisible entries of a closed state over key
positions are NaN, so that reading one shows. A state that was not masked may be summed over in
bidirectional tasks alone.

Routing is in evaluation mode: no noise, no loss, each token's best expert. A routed call runs its
subroutine once for each expert, on the tokens that have an entry for it and no others, each of them
as a sequence of one: whatever looked further than its own token would give something else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from primitives.language.dna import DNA, INPUTS, ROUTED, SHARED, Instruction

Array = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


class State(NamedTuple):
    """values [batch, T, n]; `keys` if the last axis holds key positions; `closed` after MASK; `ids`
    [batch, T, k] of a sparse state, indices below `domain`."""

    values: Array
    keys: bool = False
    closed: bool = False
    ids: Ids | None = None
    domain: int = 0


Lazy = Callable[[], State]


def interpret(
    dna: DNA, x: Array, weights: Mapping[str, Array], tokens: Ids | None = None,
    bidirectional: bool = False, rotary: bool = False,
) -> Array:  # fmt: skip
    """The block's output. `weights` maps a site to its weight, branch axes first: the site of
    main's instruction 3 is 'main_3', of instruction 0 of what it calls 'main_3_0'. `tokens`
    [batch, T] are ids, for programs that route by them. With `rotary` positions T-MAT MUL
    multiplies states that are rotated by where they stand."""
    task = _Task(weights, tokens, bidirectional, rotary)
    with np.errstate(all="ignore"):
        inputs = [lambda: State(x.astype(np.float64))] * INPUTS
        return _Call(dna, 0, inputs, "main", (), task).value(-1).values


class _Task(NamedTuple):
    """What is the same for all calls; an expert is given no tokens."""

    weights: Mapping[str, Array]
    tokens: Ids | None
    bidirectional: bool
    rotary: bool


class _Call:
    """One run of a subroutine: `site` says which call it is, `heads` which branch, or expert, of
    each branched or routed call around it."""

    def __init__(
        self,
        dna: DNA,
        index: int,
        inputs: list[Lazy],
        site: str,
        heads: tuple[int, ...],
        task: _Task,
    ) -> None:
        self.dna, self.site, self.heads, self.task = dna, site, heads, task
        self.index, self.inputs = index, inputs
        self.made: dict[int, State] = {}

    def value(self, position: int) -> State:
        rows = self.dna.subroutines[self.index].instructions
        position %= len(rows)
        if position not in self.made:
            row = rows[position]
            if row.branch == ROUTED:
                self.made[position] = self.routed(row, position)
            else:
                runs = [self.run(row, position, head) for head in range(abs(row.branch))]
                self.made[position] = _side_by_side(runs)
        return self.made[position]

    def routed(self, row: Instruction, position: int) -> State:
        """The sum over each token's gate entries (expert i, weight g) of g * callee_i(token)."""
        assert isinstance(row.op, int), "a routed primitive"
        x, gates = self.input(row.in1)().values, self.input(row.in2)()
        batch, length, size = x.shape
        token, gate = x.reshape(-1, 1, size), gates.values.reshape(batch * length, -1)
        ids = None if gates.ids is None else gates.ids.reshape(batch * length, -1)
        total: Array | None = None
        for expert in range(gates.domain or gate.shape[1]):
            entries = np.arange(gate.shape[1]) == expert if ids is None else ids == expert
            share, here = (gate * entries).sum(1), np.broadcast_to(entries, gate.shape).any(1)
            if not here.any():
                continue
            mine = State(token[here])
            site, heads = f"{self.site}_{position}", (*self.heads, expert)
            inputs: list[Lazy] = [lambda mine=mine: mine] * INPUTS  # type: ignore[misc]
            blind = self.task._replace(tokens=None)
            made = _Call(self.dna, row.op, inputs, site, heads, blind).value(-1)
            total = np.zeros((len(token), made.values.shape[2])) if total is None else total
            total[here] += share[here, None] * made.values[:, 0]
        assert total is not None
        return State(total.reshape(batch, length, -1))

    def input(self, state: int) -> Lazy:
        return self.inputs[state] if state < INPUTS else lambda: self.value(state - INPUTS)

    def run(self, row: Instruction, position: int, head: int) -> State:
        heads = self.heads if row.branch == 1 else (*self.heads, head)
        if row.branch == SHARED:  # whichever branch this is, it has the weight of all
            heads = self.heads[:-1]
        place, inputs = f"{self.site}_{position}", [self.input(row.in1), self.input(row.in2)]
        if isinstance(row.op, int):
            return _Call(self.dna, row.op, inputs, place, heads, self.task).value(-1)
        if row.op == "HASH":
            return self.hashed(self.dna.counts[row.count])
        if row.op == "TASK":
            return self.of_task(self.dna.counts[row.count])
        x = inputs[0]()
        if row.op in _REDUCTIONS or row.op in ("MAT MUL", "T-MAT MUL"):
            assert self.task.bidirectional or x.closed or not x.keys, f"{row.op} of an open state"
        if row.op in _ELEMENTWISE:
            return x._replace(values=_ELEMENTWISE[row.op](x.values))
        if row.op in _WITH_CONSTANT:
            constant = self.dna.constants[row.constant]
            return x._replace(values=_WITH_CONSTANT[row.op](x.values, constant))
        if row.op == "TOP_T":
            assert self.task.bidirectional, "TOP_T in a next-token task"
            return x._replace(values=_at_top(x.values, self.dna.constants[row.constant]))
        if row.op == "PLACE":
            eye = np.eye(x.values.shape[1], self.dna.counts[row.count])
            return State(np.broadcast_to(eye, (len(x.values), *eye.shape)))
        if row.op == "PRIORITY":
            assert self.task.bidirectional, "PRIORITY in a next-token task"
            return x._replace(values=_with_room(x, self.dna.constants[row.constant]))
        if row.op == "STEPS":
            steps = self.task.weights[place][heads]
            return State(np.broadcast_to(steps, (*x.values.shape[:2], 1)))
        if row.op in _REDUCTIONS:
            return State(_reduced(_REDUCTIONS[row.op], x))
        if row.op in _RUNNING:
            return x._replace(values=_running(_RUNNING[row.op], x))
        if row.op == "MASK":
            return State(np.where(_visible(x.values), x.values, np.nan), True, True)
        if row.op == "T-MAT MUL" and self.task.rotary:
            return _scores(_rotated(x), _rotated(inputs[1]()))
        if row.op in _PAIRWISE:
            return _PAIRWISE[row.op](x, inputs[1]())
        if row.op in _BINARY:
            return _elementwise(_BINARY[row.op], x, inputs[1]())
        if row.op in _CHOICES:
            return _CHOICES[row.op](x, self.dna.counts[row.count] if self.dna.counts else 0)
        if row.op in _PASSING:
            return x
        return State(_weighted(row.op, x.values, self.task.weights[place][heads]))

    def hashed(self, n: int) -> State:
        """Knuth, section 6.4: the n-th part of [0, 1) in which the id times 40503/65536 falls, less
        its whole part."""
        tokens = self.task.tokens
        assert tokens is not None, "a program that routes by token ids needs them"
        fraction = (tokens * 40503 / 65536) % 1
        ids = np.floor(fraction * n).astype(np.int64)[..., None]
        return State(np.ones(ids.shape), ids=ids, domain=n)

    def of_task(self, n: int) -> State:
        """The task is what the token's number has above its lowest 17 bits."""
        tokens = self.task.tokens
        assert tokens is not None, "a program that routes by tasks needs tokens"
        ids = (tokens.astype(np.int64) >> 17) % n
        return State(np.ones((*ids.shape, 1)), ids=ids[..., None], domain=n)


_ELEMENTWISE: dict[str, Callable[[Array], Array]] = {
    "ABS ROOT": lambda x: np.sqrt(np.abs(x)),
    "SQUARE": lambda x: x * x,
    "EXP": np.exp,
    "LOG": lambda x: np.log(np.abs(x)),
    "ABS": np.abs,
    "RECIP": lambda x: np.where(x == 0, 0.0, 1 / x),
    "SIGN": np.sign,
    "COS": np.cos,
    "SIN": np.sin,
    "TANH": np.tanh,
    "SIGMOID": lambda x: 1 / (1 + np.exp(-x)),
    "STEP": lambda x: (x > 0).astype(np.float64),
    "NOISE": np.zeros_like,
    "UNIFORM": np.zeros_like,
}
_PASSING = (
    "STOP_GRAD", "BALANCE", "SWITCH_LOSS", "IMPORTANCE_LOSS", "LOAD_LOSS", "Z_LOSS",
    "SPARSITY_LOSS", "JOINT_SPARSITY_LOSS", "REINFORCE", "BASELINE", "CONSISTENCY", "REMEMBER",
)  # fmt: skip
"""Where evaluation gives input 1 as it is."""
_WITH_CONSTANT: dict[str, Callable[[Array, float], Array]] = {
    "C MUL": lambda x, c: x * c, "MAX": np.maximum, "MIN": np.minimum,
}  # fmt: skip
_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "ADD": np.add, "DIFFERENCE": np.subtract, "DIVIDE": np.divide, "MULTIPLY": np.multiply,
}  # fmt: skip
_REDUCTIONS: dict[str, Callable[..., Array]] = {
    "RED MEAN": np.mean, "RED SUM": np.sum, "RED MIN": np.min, "RED MAX": np.max,
    "RED PROD": np.prod,
}  # fmt: skip
_RUNNING: dict[str, Callable[[Array, Array], Array]] = {
    "CUM PROD": np.multiply, "CUM SUM": np.add,
}  # fmt: skip


def _visible(x: Array) -> npt.NDArray[np.bool_]:
    return np.tril(np.ones(x.shape[-2:], bool))


def _side_by_side(runs: list[State]) -> State:
    if len(runs) == 1:
        return runs[0]
    values = np.concatenate([run.values for run in runs], axis=-1)
    ids = [run.ids for run in runs if run.ids is not None]
    return State(values, ids=np.concatenate(ids, axis=-1) if ids else None, domain=runs[0].domain)


def _elementwise(function: Callable[[Array, Array], Array], x: State, y: State) -> State:
    if x.ids is not None and y.ids is not None:
        assert np.array_equal(x.ids, y.ids), "sparse states of different indices"
    ids, values = (y.ids if x.ids is None else x.ids), function(x.values, y.values)
    return State(values, x.keys or y.keys, x.closed or y.closed, ids, x.domain or y.domain)


def _top_k(x: State, k: int) -> State:
    """The k largest, largest first, of equal ones the first."""
    ranks = np.argsort(-x.values, axis=-1, kind="stable")[..., :k]
    ids = ranks if x.ids is None else np.take_along_axis(x.ids, ranks, -1)
    domain = x.domain or x.values.shape[-1]
    return State(np.take_along_axis(x.values, ranks, -1), ids=ids, domain=domain)


def _take(x: State, y: State) -> State:
    assert y.ids is not None and x.ids is None and x.values.shape[-1] == y.domain
    return State(np.take_along_axis(x.values, y.ids, -1), ids=y.ids, domain=y.domain)


def _pair(x: State, y: State) -> State:
    """Entry i of x and j of y make entry i m + j, and so do their indices."""
    values = [x.values[..., i, None] + y.values for i in range(x.values.shape[-1])]
    if x.ids is None or y.ids is None:
        return State(np.concatenate(values, -1))
    ids = [x.ids[..., i, None] * y.domain + y.ids for i in range(x.ids.shape[-1])]
    return State(
        np.concatenate(values, -1), ids=np.concatenate(ids, -1), domain=x.domain * y.domain
    )


def _at_top(x: Array, share: float) -> Array:
    """x [batch, T, experts] at the share of its positions, rounded up, that each column has its
    largest values at, of equal ones the first; one at least."""
    length = x.shape[1]
    count = min(max(1, math.ceil(share * length - 1e-9)), length)
    ranks = np.argsort(np.argsort(-x, axis=1, kind="stable"), axis=1)
    return np.where(ranks < count, x, 0.0)


def _with_room(x: State, share: float) -> Array:
    """Gates of a sparse state whose expert has room, token by token: first choices of all tokens,
    those with the largest gate first, then second ones."""
    assert x.ids is not None
    batch, length, k = x.values.shape
    room, kept = min(max(1, math.ceil(share * length - 1e-9)), length), np.zeros(x.values.shape)
    for b in range(batch):
        taken = np.zeros(x.domain, int)
        for choice in range(k):
            for t in np.argsort(-x.values[b].max(-1), kind="stable"):
                expert = x.ids[b, t, choice]
                kept[b, t, choice] = taken[expert] < room
                taken[expert] += 1
    return x.values * kept


def _reduced(function: Callable[..., Array], x: State) -> Array:
    rows = []
    for t in range(x.values.shape[1]):
        row = x.values[:, t, : t + 1] if x.closed else x.values[:, t]
        rows.append(function(row, axis=-1, keepdims=True))
    return np.stack(rows, axis=1)


def _running(function: Callable[[Array, Array], Array], x: State) -> Array:
    """Down each column; a column of a closed state begins where it becomes visible."""
    out = np.full_like(x.values, np.nan)
    for column in range(x.values.shape[2]):
        first = column if x.closed else 0
        total = x.values[:, first, column]
        out[:, first, column] = total
        for t in range(first + 1, x.values.shape[1]):
            total = function(total, x.values[:, t, column])
            out[:, t, column] = total
    return out


def _product(x: State, y: State) -> State:
    """out[t] = sum over s of x[t, s] y[s], over s <= t if x is closed; a closed y[s] has its first
    s + 1 entries only."""
    batch, length, _ = x.values.shape
    out, closed = np.zeros((batch, length, y.values.shape[2])), x.closed and y.closed
    for t in range(length):
        for s in range(t + 1 if x.closed else length):
            some = slice(s + 1) if y.closed else slice(None)
            out[:, t, some] += x.values[:, t, s, None] * y.values[:, s, some]
    return State(np.where(_visible(out), out, np.nan) if closed else out, y.keys, closed)


def _scores(x: State, y: State) -> State:
    """out[t, u] = x[t] . y[u], over the entries that both rows have."""
    batch, length, size = x.values.shape
    out = np.zeros((batch, length, length))
    for t in range(length):
        for u in range(length):
            both = min(t + 1 if x.closed else size, u + 1 if y.closed else size)
            out[:, t, u] = (x.values[:, t, :both] * y.values[:, u, :both]).sum(-1)
    return State(out, keys=True)


def _rotated(x: State) -> State:
    """Su et al. 2021, section 3.2.2: features i and i + n // 2 as a complex number, times
    e^(i t theta) at position t. What stands over key positions is left alone."""
    if x.keys:
        return x
    size = x.values.shape[2]
    made = x.values.copy()
    for feature in range(size // 2):
        theta = 10000.0 ** (-feature / (size // 2))
        for t in range(x.values.shape[1]):
            point = x.values[:, t, feature] + 1j * x.values[:, t, feature + size // 2]
            point = point * np.exp(1j * t * theta)
            made[:, t, feature], made[:, t, feature + size // 2] = point.real, point.imag
    return x._replace(values=made)


_PAIRWISE: dict[str, Callable[[State, State], State]] = {
    "MAT MUL": _product, "T-MAT MUL": _scores, "TAKE": _take, "PAIR": _pair,
}  # fmt: skip
_CHOICES: dict[str, Callable[[State, int], State]] = {
    "TOP_K": _top_k, "ASSIGN": lambda x, count: _top_k(x, 1),
}  # fmt: skip


def _weighted(op: str, x: Array, w: Array) -> Array:
    if op == "SCALE":
        return x * w
    if op in ("SHIFT", "BALANCE_BIAS"):
        return x + w
    if op == "THRESHOLD":
        return (x > w).astype(np.float64)
    if op in ("CONV 1X1", "SCORE", "FROZEN"):
        return x @ w
    depthwise = op.startswith("DCONV")
    rows = []
    for t in range(x.shape[1]):
        taps = w[-(t + 1) :]
        past = x[:, t + 1 - len(taps) : t + 1]
        rows.append((past * taps).sum(1) if depthwise else np.einsum("bkn,knm->bm", past, taps))
    return np.stack(rows, axis=1)
