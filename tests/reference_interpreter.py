"""What a program means, said a second time: a slow interpreter in NumPy, for tests to compare with.

It runs the DNA as written, instruction by instruction, every head of a branched instruction by
itself, and reads a state only when something asks for it. It infers no types, rewrites nothing and
knows nothing of `graph`, `emit` or `kernels`. Invisible entries of a closed state over key
positions are NaN, so that reading one shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from primitives.dna import DNA, INPUTS, Instruction

Array = npt.NDArray[np.float64]


class State(NamedTuple):
    """values [batch, T, n]; `keys` if the last axis holds key positions; `closed` after MASK."""

    values: Array
    keys: bool = False
    closed: bool = False


Lazy = Callable[[], State]


def interpret(dna: DNA, x: Array, weights: Mapping[str, Array]) -> Array:
    """The block's output. `weights` maps a site to its weight, branch axes first: the site of
    main's instruction 3 is 'main_3', of instruction 0 of what it calls 'main_3_0'."""
    with np.errstate(all="ignore"):
        inputs = [lambda: State(x.astype(np.float64))] * INPUTS
        return _Call(dna, 0, inputs, "main", (), weights).value(-1).values


class _Call:
    """One run of a subroutine: `site` says which call it is, `heads` which branch of each branched
    call around it."""

    def __init__(
        self,
        dna: DNA,
        index: int,
        inputs: list[Lazy],
        site: str,
        heads: tuple[int, ...],
        weights: Mapping[str, Array],
    ) -> None:
        self.dna, self.site, self.heads, self.weights = dna, site, heads, weights
        self.index, self.inputs = index, inputs
        self.made: dict[int, State] = {}

    def value(self, position: int) -> State:
        rows = self.dna.subroutines[self.index].instructions
        position %= len(rows)
        if position not in self.made:
            row = rows[position]
            runs = [self.run(row, position, head) for head in range(row.branch)]
            self.made[position] = _side_by_side(runs)
        return self.made[position]

    def input(self, state: int) -> Lazy:
        return self.inputs[state] if state < INPUTS else lambda: self.value(state - INPUTS)

    def run(self, row: Instruction, position: int, head: int) -> State:
        heads = self.heads if row.branch == 1 else (*self.heads, head)
        place, inputs = f"{self.site}_{position}", [self.input(row.in1), self.input(row.in2)]
        if isinstance(row.op, int):
            return _Call(self.dna, row.op, inputs, place, heads, self.weights).value(-1)
        x = inputs[0]()
        if row.op in _ELEMENTWISE:
            return x._replace(values=_ELEMENTWISE[row.op](x.values))
        if row.op in _WITH_CONSTANT:
            constant = self.dna.constants[row.constant]
            return x._replace(values=_WITH_CONSTANT[row.op](x.values, constant))
        if row.op in _REDUCTIONS:
            return State(_reduced(_REDUCTIONS[row.op], x))
        if row.op in _RUNNING:
            return x._replace(values=_running(_RUNNING[row.op], x))
        if row.op == "MASK":
            return State(np.where(_visible(x.values), x.values, np.nan), True, True)
        if row.op in _BINARY:
            y = inputs[1]()
            values = _BINARY[row.op](x.values, y.values)
            return State(values, x.keys or y.keys, x.closed or y.closed)
        if row.op == "MAT MUL":
            return _product(x, inputs[1]())
        if row.op == "T-MAT MUL":
            return _scores(x, inputs[1]())
        return State(_weighted(row.op, x.values, self.weights[place][heads]))


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
}
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
    return State(np.concatenate([run.values for run in runs], axis=-1))


def _reduced(function: Callable[..., Array], x: State) -> Array:
    rows = []
    for t in range(x.values.shape[1]):
        row = x.values[:, t, : t + 1] if x.keys else x.values[:, t]
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
    """out[t] = sum over s <= t of x[t, s] y[s]; a closed y[s] has its first s + 1 entries only."""
    assert x.closed, "MAT MUL on an open state"
    batch, length, _ = x.values.shape
    out = np.zeros((batch, length, y.values.shape[2]))
    for t in range(length):
        for s in range(t + 1):
            some = slice(s + 1) if y.closed else slice(None)
            out[:, t, some] += x.values[:, t, s, None] * y.values[:, s, some]
    return State(np.where(_visible(out), out, np.nan) if y.closed else out, y.keys, y.closed)


def _scores(x: State, y: State) -> State:
    """out[t, u] = x[t] . y[u], over the entries that both rows have."""
    batch, length, size = x.values.shape
    assert not x.keys or (x.closed and y.closed), "T-MAT MUL over an open state"
    out = np.zeros((batch, length, length))
    for t in range(length):
        for u in range(length):
            both = min(t, u) + 1 if x.keys else size
            out[:, t, u] = (x.values[:, t, :both] * y.values[:, u, :both]).sum(-1)
    return State(out, keys=True)


def _weighted(op: str, x: Array, w: Array) -> Array:
    if op == "SCALE":
        return x * w
    if op == "SHIFT":
        return x + w
    if op == "CONV 1X1":
        return x @ w
    depthwise = op.startswith("DCONV")
    rows = []
    for t in range(x.shape[1]):
        taps = w[-(t + 1) :]
        past = x[:, t + 1 - len(taps) : t + 1]
        rows.append((past * taps).sum(1) if depthwise else np.einsum("bkn,knm->bm", past, taps))
    return np.stack(rows, axis=1)
