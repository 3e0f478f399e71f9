"""What a model's experts have specialised in, from the choices of its routed calls.

An expert's typical tokens are those that it gets most often (their share of its load), and those
that it gets more often than chance would have it: the lift of a token is its share of the expert's
load over its share of the text.

Two routed calls agree as far as one tells the other's choice: the adjusted mutual information of
the experts with the largest gates (Vinh et al. 2010; the mean of the two entropies as its bound), 0
by chance and 1 where either expert gives the other. Experts have no order, so equal numbers say
nothing. What chance gives is measured, by pairing the choices at random.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workers.data.spelling import Spelling
from workers.training.choices import Choices, Integers

EXPERTS = 64
"""Of a call with more experts, those with the largest loads are told of."""

TYPICAL = 5
"""Typical tokens of an expert."""

OFTEN = 5
"""How many times an expert must get a token for its lift to count: that of rare ones is chance."""

SHUFFLES = 3

Specialty = Mapping[str, Any]
"""A routed call as JSON: `layer`, from 1; `experts`, how many; `tokens`, how many were looked at;
`entropy` of the load, in nats, at most ln(experts); `dead`, how many experts got no token;
`agreement` with the routed call before it, null for the first; and `fullest`, the experts with the
largest loads. Each of these has its number `expert`, its `load` (a share of all choices), and its
typical tokens `often` and `lifted` as pairs [text, share of its load] and [text, lift]."""


def specialties(
    tokens: Integers, calls: Sequence[Choices], spelled: Spelling
) -> tuple[Specialty, ...]:
    """One for each routed call, in order; `tokens` [N] are those that the choices are for."""
    found: list[Specialty] = []
    before: Choices | None = None
    for call in calls:
        agreed = None if before is None else agreement(before.best, call.best)
        found.append(_specialty(tokens, call, spelled) | {"agreement": _rounded(agreed)})
        before = call
    return tuple(found)


def _specialty(tokens: Integers, call: Choices, spelled: Spelling) -> dict[str, Any]:
    chosen = call.experts >= 0
    load = np.bincount(call.experts[chosen], minlength=call.count)
    total = int(load.sum())
    shares = load[load > 0] / max(total, 1)
    fullest = np.argsort(-load, kind="stable")[: min(EXPERTS, int((load > 0).sum()))]
    table = _counts(tokens, call, fullest)
    text = np.bincount(tokens, minlength=table.shape[1]) / max(len(tokens), 1)
    return {
        "layer": call.layer,
        "experts": call.count,
        "tokens": len(tokens),
        "entropy": _rounded(-float(np.sum(shares * np.log(shares)))),
        "dead": int(np.sum(load == 0)),
        "fullest": [
            {
                "expert": int(expert),
                "load": _rounded(load[expert] / total),
                "often": _typical(row / row.sum(), row > 0, spelled),
                "lifted": _typical(lift, (row >= OFTEN) & (lift > 1), spelled),
            }
            for expert, row in zip(fullest, table, strict=True)
            for lift in [_lift(row, text)]
        ],
    }


def _lift(counts: Any, text: Any) -> Any:
    """Shares of an expert's load over shares of the text, 0 for tokens that are not there."""
    return np.where(text > 0, counts / counts.sum() / np.where(text > 0, text, 1), 0)


def _counts(tokens: Integers, call: Choices, experts: Integers) -> Any:
    """How often each of some experts got each token, [experts, token ids]."""
    width = int(tokens.max(initial=0)) + 1
    row = np.full(call.count + 1, -1)
    row[experts] = np.arange(len(experts))
    places = row[call.experts]  # -1, where there is no expert, reads the last, which is -1
    at = places >= 0
    cells = places[at] * width + np.broadcast_to(tokens[:, None], places.shape)[at]
    return np.bincount(cells, minlength=len(experts) * width).reshape(len(experts), width)


def _typical(values: Any, counted: Any, spelled: Spelling) -> list[list[Any]]:
    """The tokens with the largest values, among those that count."""
    ids = np.flatnonzero(counted)
    best = ids[np.argsort(-values[ids], kind="stable")[:TYPICAL]]
    return [[spelled(int(token)), _rounded(values[token])] for token in best]


def agreement(first: Integers, second: Integers) -> float | None:
    """How far either of two choices [N] tells the other one; those with a -1 are left out. None
    where one of them is always the same, or all pairs differ: nothing can be told then."""
    there = (first >= 0) & (second >= 0)
    one, two = first[there], second[there]
    entropies = _entropy(one), _entropy(two)
    if min(entropies) <= 0:
        return None
    rng = np.random.default_rng(0)
    chance = sum(_shared(one, rng.permutation(two)) for _ in range(SHUFFLES)) / SHUFFLES
    room = sum(entropies) / 2 - chance
    return (_shared(one, two) - chance) / room if room > 1e-9 else None


def _shared(one: Integers, two: Integers) -> float:
    """Mutual information, in nats."""
    pairs = one.astype(np.int64) * (int(two.max()) + 1) + two
    return _entropy(one) + _entropy(two) - _entropy(pairs)


def _entropy(labels: Integers) -> float:
    if not len(labels):
        return 0.0
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return -float(np.sum(shares * np.log(shares))) if len(shares) > 1 else 0.0


def _rounded(value: float | None) -> float | None:
    """To four digits: it is stored, and read by people."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.4g}")
