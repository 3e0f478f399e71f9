"""Which types fit which primitive, sparse states and experts' slots included, said independently of
primitives.ops.types."""

from __future__ import annotations

import re
from itertools import product

import pytest

from primitives.ops.state import (
    BLOCK,
    CHANNELS,
    COUNT,
    ENTRIES,
    KEYS,
    MAX_DOMAIN,
    Mismatch,
    StateType,
)
from primitives.ops.table import PRIMITIVES, infer
from primitives.ops.types import dispatch

SIZE, EXPERTS = 2, (-2,)
"""What SCORE, TOP_K and the like read as their count; and the slots of two experts."""

ON_SEQUENCE = [
    StateType(CHANNELS, 8), StateType(COUNT, 1), StateType(COUNT, 2), StateType(COUNT, 4),
    StateType(KEYS, 0), StateType(KEYS, 0, closed=True),
    StateType(ENTRIES, 1, domain=4), StateType(ENTRIES, 2, domain=4),
    StateType(ENTRIES, 2, domain=8),
]  # fmt: skip
IN_SLOTS = [
    StateType(kind.axis, kind.size, EXPERTS, domain=kind.domain)
    for kind in ON_SEQUENCE
    if kind.axis != KEYS
]
KINDS = [*ON_SEQUENCE, *IN_SLOTS]

WEIGHTED = [name for name, row in PRIMITIVES.items() if row.weight]
TAPS = re.compile(r"D?CONV (3|7|15|31)X1")
ALONG_T = ["CUM PROD", "CUM SUM", *(name for name in WEIGHTED if TAPS.match(name))]
OVER_SCORES = ["BALANCE", "ASSIGN", "BALANCE_BIAS", "THRESHOLD", "TOP_T", "SPARSITY_LOSS"]
OVER_SCORES.append("JOINT_SPARSITY_LOSS")
ANY = ["STOP_GRAD", "STEP", "HASH", "TASK", "CONSISTENCY"]


def sized(x: StateType) -> tuple[str, int, int]:
    return x.axis, x.size, x.domain


def fits(name: str, x: StateType, y: StateType, bidirectional: bool) -> bool:
    row = PRIMITIVES[name]
    if row.bidirectional and not bidirectional:
        return False
    slots, keys = x.branches == EXPERTS, x.axis == KEYS
    sparse, scores = x.axis == ENTRIES, x.axis == COUNT
    if row.binary and x.branches != y.branches:
        return False
    if name in OVER_SCORES:
        most = SIZE if "count" in row.reads else 1
        return scores and not slots and x.size >= most
    if name in ("NOISE", "UNIFORM"):
        return not keys and not slots
    if name == "TOP_K":
        return (scores or sparse) and x.size >= SIZE
    if name == "TAKE":
        return scores and y.axis == ENTRIES and y.domain == x.size
    if name == "PAIR":
        return x.axis == y.axis and (scores or sparse)
    if name == "SWITCH_LOSS":
        return sparse and y.axis == COUNT and y.size == x.domain and not slots
    if name in ("IMPORTANCE_LOSS", "Z_LOSS"):
        return (scores or sparse) and not slots
    if name == "REMEMBER":
        return x == BLOCK
    if name == "STEPS":
        return not keys and not sparse and not slots
    if name == "PLACE":
        return not keys and not slots
    if name == "PRIORITY":
        return sparse and not slots
    if name in ("LOAD_LOSS", "REINFORCE", "BASELINE"):
        return y.axis in (COUNT, ENTRIES) and not slots
    if name == "MASK":
        return keys
    if name == "MAT MUL":
        return keys and (x.closed or bidirectional) and y.axis != ENTRIES
    if name == "T-MAT MUL":
        return sized(x) == sized(y) and not sparse and not slots and (
            not keys or (x.closed and y.closed) or bidirectional
        )  # fmt: skip
    if name.startswith("RED"):
        return not keys or x.closed or bidirectional
    if row.weight:
        return not keys and not sparse and not (slots and name in ALONG_T)
    if name in ALONG_T:
        return not sparse and not slots
    single = (COUNT, 1, 0)
    return not row.binary or sized(x) == sized(y) or single in (sized(x), sized(y))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", PRIMITIVES)
def test_types_fit_or_are_refused_with_a_reason(name: str, bidirectional: bool) -> None:
    row, fitting = PRIMITIVES[name], 0
    for x, y in product(KINDS, KINDS if row.binary else KINDS[:1]):
        context = x.branches if row.weight else ()
        size = SIZE if {"dim", "count"} & {*row.reads} else 0
        made = infer(name, x, y, size, context, bidirectional)
        expected = fits(name, x, y, bidirectional)
        assert isinstance(made, StateType) == expected, f"{name} on {x}, {y}: {made}"
        assert not isinstance(made, Mismatch) or len(str(made)) > 15
        fitting += isinstance(made, StateType)
    assert fitting or (row.bidirectional and not bidirectional)


@pytest.mark.parametrize("name", WEIGHTED)
def test_an_experts_weights_act_on_its_own_tokens(name: str) -> None:
    for x in (*ON_SEQUENCE, StateType(COUNT, 4, (-4,)), StateType(COUNT, 4, (2,))):
        made = infer(name, x, x, SIZE, EXPERTS)
        assert isinstance(made, Mismatch), f"{name} on {x}: {made}"
    made = infer(name, StateType(COUNT, 4), StateType(COUNT, 4), SIZE, (2, 2, 2, 2, 2))
    assert "at most 4" in str(made)


def test_what_a_primitive_gives() -> None:
    """Sizes, domains and branch axes."""
    scores, heads = StateType(COUNT, 4), StateType(COUNT, 8, (2,))
    two, three = StateType(ENTRIES, 2, domain=4), StateType(ENTRIES, 3, (2,), domain=8)
    made = {
        "SCORE": (infer("SCORE", StateType(CHANNELS, 8), scores, 4, (2,)), COUNT, 4, (2,), 0),
        "TOP_K": (infer("TOP_K", scores, scores, 3, ()), ENTRIES, 3, (), 4),
        "TOP_K of entries": (infer("TOP_K", three, three, 2, ()), ENTRIES, 2, (2,), 8),
        "TAKE": (infer("TAKE", heads, three, 0, ()), ENTRIES, 3, (2,), 8),
        "PAIR": (infer("PAIR", scores, heads, 0, ()), COUNT, 32, (2,), 0),
        "PAIR of entries": (infer("PAIR", two, three, 0, ()), ENTRIES, 6, (2,), 32),
        "HASH": (infer("HASH", heads, heads, 4, ()), ENTRIES, 1, (), 4),
        "TASK": (infer("TASK", heads, heads, 5, ()), ENTRIES, 1, (), 5),
        "ASSIGN": (infer("ASSIGN", heads, heads, 0, ()), ENTRIES, 1, (2,), 8),
        "RED SUM": (infer("RED SUM", three, three, 0, ()), COUNT, 1, (2,), 0),
        "ADD": (infer("ADD", two, StateType(COUNT, 1, (2,)), 0, ()), ENTRIES, 2, (2,), 4),
        "BALANCE_BIAS": (infer("BALANCE_BIAS", scores, scores, 1, (2,)), COUNT, 4, (2,), 0),
    }
    for name, (kind, axis, size, branches, domain) in made.items():
        assert kind == StateType(axis, size, branches, domain=domain), f"{name} gives {kind}"


def test_product_keys_end_where_indices_do() -> None:
    wide = StateType(COUNT, 2048)
    assert isinstance(infer("PAIR", wide, wide, 0, ()), StateType)
    assert MAX_DOMAIN == 2048 * 2048
    made = infer("PAIR", wide, StateType(COUNT, 4096), 0, ())
    assert isinstance(made, Mismatch) and str(MAX_DOMAIN) in str(made)


def test_dispatch_needs_tokens_and_gates_of_one_buffer() -> None:
    tokens, gates = StateType(CHANNELS, 8), StateType(COUNT, 4)
    assert dispatch(tokens, gates, (2,)) == StateType(CHANNELS, 8, (2, -4))
    inside, own = StateType(CHANNELS, 8, (-2,)), StateType(COUNT, 4, (-2,))
    assert dispatch(inside, own, (-2,)) == StateType(CHANNELS, 8, (-2, -4))
    for x, y, context in ((inside, gates, (-2,)), (tokens, own, (-2,)), (tokens, gates, (-2,))):
        assert isinstance(dispatch(x, y, context), Mismatch)
