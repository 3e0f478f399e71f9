"""Which types fit which primitive, sparse states and experts' slots included, said independently of
primitives.ops.types; and programs that route where they may not, refused with a reason."""

from __future__ import annotations

import re
from itertools import product

import pytest

from primitives import Graph, IllTyped, build, parse
from primitives.graph.build import COMBINE, DISPATCH
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


BANKS = "dims d0=8 d1=1\nconstants c0=0.0 c1=0.5\ncounts n0=4 n1=2 n2=8\n"
EXPERT = "\nexpert(x, y):\n  out = CONV 1X1(x) dim=d0\n"
POSITIONS, SLOTS = "positions differ", "an expert's slots are not a sequence"
INDICES = "sparse states of different indices: "


def main(*lines: str, expert: tuple[str, ...] = ("out = CONV 1X1(x) dim=d0",)) -> str:
    body = "".join(f"  {line}\n" for line in expert)
    start = "  scores = SCORE(x) count=n0\n  top = TOP_K(scores) count=n1\n"
    return (
        f"{BANKS}main(x, y):\n{start}" + "".join(f"  {line}\n" for line in lines)
        + f"\nexpert(x, y):\n{body}"
    )  # fmt: skip


def routed(*expert: str) -> str:
    """The expert of a routed call."""
    return main("out = expert(x, top) branch=routed", expert=expert)


REFUSED = {
    "sums of entries of different experts": (
        main("others = SCORE(x) count=n0", "again = TOP_K(others) count=n1",
             "sums = ADD(top, again)", "out = expert(x, sums) branch=routed"),
        f"{INDICES}ADD cannot join them", "main.sums",
    ),
    "a loss by entries of different experts": (
        main("others = SCORE(x) count=n0", "again = TOP_K(others) count=n1",
             "sums = LOAD_LOSS(top, again)", "out = expert(x, sums) branch=routed"),
        f"{INDICES}LOAD_LOSS cannot join them", "main.sums",
    ),
    "fewer entries with more": (
        main("one = TOP_K(top) count=n1", "best = ASSIGN(scores)", "sums = ADD(one, best)",
             "out = expert(x, sums) branch=routed"),
        "feature axes differ", "main.sums",
    ),
    "more than there are": (
        main("all = TOP_K(scores) count=n2", "out = expert(x, all) branch=routed"),
        "top-k cannot take more than there are: 8 of 4", "main.all",
    ),
    "a bias that keeps more busy than there are": (
        main("all = BALANCE_BIAS(scores) count=n2", "out = expert(x, all) branch=routed"),
        "top-k cannot take more than there are: 8 of 4", "main.all",
    ),
    "the largest channels": (
        main("best = TOP_K(x) count=n1", "out = expert(x, best) branch=routed"),
        "top-k needs scores that a count sizes", "main.best",
    ),
    "scores of other experts": (
        main("others = SCORE(x) count=n2", "taken = TAKE(others, top)",
             "out = expert(x, taken) branch=routed"),
        "TAKE reads scores over n experts at indices below n", "main.taken",
    ),
    "gates of key positions": (
        main("keys = T-MAT MUL(x, x)", "seen = MASK(keys)", "out = expert(x, seen) branch=routed"),
        "a routed call takes gates over experts as input 2", "main.out",
    ),
    "gates of channels": (
        main("out = expert(x, x) branch=routed"),
        "a routed call takes gates over experts as input 2", "main.out",
    ),
    "tokens that are entries": (
        main("mixed = expert(top, scores) branch=routed", "out = ADD(x, mixed)"),
        "a routed call takes tokens of channels", "main.mixed",
    ),
    "a routed primitive": (
        main("fed = CONV 1X1(x, top) dim=d0 branch=routed"),
        "only a call of a subroutine can be routed, not CONV 1X1", "main.fed",
    ),
    "weights over ranks": (
        main("mixed = CONV 1X1(top) dim=d0"),
        "weights over a sparse state would belong to ranks", "main.mixed",
    ),
    "a running sum of entries": (
        main("sums = CUM SUM(top)", "out = expert(x, sums) branch=routed"),
        "the indices of a sparse state differ from position to position", "main.sums",
    ),
    "a product of entries": (
        main("products = T-MAT MUL(top, top)", "seen = MASK(products)", "out = MAT MUL(seen, x)"),
        "a product needs channels", "main.products",
    ),
    "entries as the block's output": (main(), "the block must give", "main"),
    "a running sum over an expert's tokens": (
        routed("sums = CUM SUM(x)", "out = CONV 1X1(sums) dim=d0"),
        SLOTS, "main.out > expert.sums",
    ),
    "a convolution over an expert's tokens": (
        routed("out = CONV 3X1(x) dim=d0"), SLOTS, "main.out > expert.out",
    ),
    "attention among an expert's tokens": (
        routed("keys = T-MAT MUL(x, x)", "seen = MASK(keys)", "out = MAT MUL(seen, x)"),
        SLOTS, "main.out > expert.keys",
    ),
    "noise of an expert's own": (
        routed("noise = NOISE(x)", "out = ADD(x, noise)"), SLOTS, "main.out > expert.noise",
    ),
    "a bias of an expert's own": (
        routed("inner = SCORE(x) count=n0", "biased = BALANCE_BIAS(inner) count=n1",
               "out = CONV 1X1(biased) dim=d0"),
        SLOTS, "main.out > expert.biased",
    ),
    "a loss of an expert's own": (
        routed("inner = SCORE(x) count=n0", "kept = Z_LOSS(inner)", "out = CONV 1X1(kept) dim=d0"),
        SLOTS, "main.out > expert.kept",
    ),
    "token ids in an expert": (
        routed("id = HASH(x) count=n0", "sum = RED SUM(id)", "out = ADD(x, sum)"),
        POSITIONS, "main.out > expert.out",
    ),
    "token ids under an expert's weights": (
        routed("id = HASH(x) count=n0", "sum = RED SUM(id)", "biased = BALANCE_BIAS(sum) count=n3",
               "out = ADD(x, biased)").replace("n2=8", "n2=8 n3=1"),
        "an expert's weights act on its tokens", "main.out > expert.biased",
    ),
    "an expert that chooses by token id": (
        routed("id = HASH(x) count=n0", "inner = leaf(x, id) branch=routed", "out = ABS(inner)")
        + "\nleaf(x, y):\n  out = ABS(x)\n",
        "a routed call takes tokens and gates of equal positions", "main.out > expert.inner",
    ),
    "an expert that gives entries": (
        routed("inner = SCORE(x) count=n0", "out = TOP_K(inner) count=n1"),
        "an expert must give channels made of its tokens", "main.out",
    ),
    "experts five deep": (
        f"{BANKS}main(x, y):\n  out = f0(x, y)\n"
        + "".join(
            f"\nf{i}(x, y):\n  g = SCORE(x) count=n1\n  out = f{i + 1}(x, g) branch=routed\n"
            for i in range(5)
        )
        + "\nf5(x, y):\n  out = ABS(x)\n",
        "branched calls nest too deep: 5 axes; at most 4",
        "main.out > f0.out > f1.out > f2.out > f3.out > f4.out",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_programs_are_refused_by_name(name: str) -> None:
    text, reason, where = REFUSED[name]
    made = build(parse(text))
    assert isinstance(made, IllTyped)
    assert reason in made.reason
    assert made.where == where
    again = build(parse(text), bidirectional=True)
    assert isinstance(again, IllTyped) and again == made, "the reason has to do with causality"


def test_what_is_wrong_is_told_in_few_kinds() -> None:
    """A kind says nothing of the case at hand: no types, no sizes, no names of ops that vary."""
    kinds = {build(parse(text)).kind for text, _, _ in REFUSED.values()}
    assert len(kinds) < len(REFUSED)
    assert not any(mark in kind for kind in kinds for mark in (":", ";", "got", "[T", " 8 "))
    one, other = (build(parse(REFUSED[name][0])) for name in (
        "sums of entries of different experts", "a loss by entries of different experts"
    ))  # fmt: skip
    assert one.kind == other.kind and one.reason != other.reason


def test_only_bidirectional_tasks_have_top_t() -> None:
    text = main("best = TOP_T(scores) constant=c1", "out = expert(x, best) branch=routed")
    refused = build(parse(text))
    assert isinstance(refused, IllTyped) and refused.where == "main.best"
    assert refused.reason == (
        "TOP_T compares a token with later ones; only bidirectional tasks may have it"
    )
    assert refused.kind == "TOP_T compares a token with later ones"
    assert isinstance(build(parse(text), bidirectional=True), Graph)


ACCEPTED = {
    "sums of entries of the same experts": main(
        "powers = EXP(top)", "sums = ADD(top, powers)", "out = expert(x, sums) branch=routed"
    ),
    "entries read at others' indices": main(
        "others = SCORE(x) count=n0", "taken = TAKE(others, top)", "sums = ADD(top, taken)",
        "out = expert(x, sums) branch=routed",
    ),
    "the same choice made twice": main(
        "again = TOP_K(scores) count=n1", "sums = ADD(top, again)",
        "out = expert(x, sums) branch=routed",
    ),
    "gates over all experts": main("out = expert(x, scores) branch=routed"),
    "any entry's experts, of any size": main(
        "pairs = PAIR(top, top)", "best = TOP_K(pairs) count=n1",
        "out = expert(x, best) branch=routed",
    ),
    "a sum of entries": main("sum = RED SUM(top)", "out = MULTIPLY(x, sum)"),
    "heads in an expert": routed("out = CONV 1X1(x) dim=d1 branch=8"),
    "an expert's own experts": routed(
        "inner = SCORE(x) count=n0", "best = TOP_K(inner) count=n1",
        "out = leaf(x, best) branch=routed",
    ) + "\nleaf(x, y):\n  out = CONV 1X1(x) dim=d0\n",
    "a hash beside what nothing reads": routed("id = HASH(x) count=n0", "out = ABS(x)"),
    "entries side by side": main(
        "wide = choice(x) branch=2", "out = expert(x, wide) branch=routed"
    ) + "\nchoice(x, y):\n  all = SCORE(x) count=n0\n  out = TOP_K(all) count=n1\n",
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_their_neighbours_are_not(name: str) -> None:
    assert isinstance(build(parse(ACCEPTED[name])), Graph)


def test_a_hash_reads_no_state() -> None:
    """So what stands in its input is silent: it is neither typed nor hashed."""
    text = main("ids = HASH(x) count=n0", "out = expert(x, ids) branch=routed")
    other = text.replace("HASH(x)", "HASH(wrong)").replace("  ids", "  wrong = MASK(x)\n  ids")
    first, second = build(parse(text)), build(parse(other))
    assert isinstance(first, Graph) and isinstance(second, Graph)
    assert first.hash == second.hash


def test_tokens_are_dispatched_once_for_all_that_go_the_same_way() -> None:
    text = main(
        "a = expert(x, top) branch=routed", "powers = EXP(top)",
        "b = expert(x, powers) branch=routed", "out = ADD(a, b)",
    )  # fmt: skip
    graph = build(parse(text))
    assert isinstance(graph, Graph)
    ops = [node.op for node in graph.nodes]
    assert ops.count(DISPATCH) == 1 and ops.count(COMBINE) == 2


def test_results_differ_where_gates_do() -> None:
    """Experts without weights that get the same tokens give the same, to be summed each way."""
    text = main(
        "a = expert(x, top) branch=routed", "powers = EXP(top)",
        "b = expert(x, powers) branch=routed", "again = expert(x, top) branch=routed",
        "sum = ADD(a, b)", "out = ADD(sum, again)", expert=("out = ABS(x)",),
    )  # fmt: skip
    graph = build(parse(text))
    assert isinstance(graph, Graph)
    ops = [node.op for node in graph.nodes]
    assert (ops.count(DISPATCH), ops.count("ABS"), ops.count(COMBINE)) == (1, 1, 2)


def test_dispatch_needs_tokens_and_gates_of_one_buffer() -> None:
    tokens, gates = StateType(CHANNELS, 8), StateType(COUNT, 4)
    assert dispatch(tokens, gates, (2,)) == StateType(CHANNELS, 8, (2, -4))
    inside, own = StateType(CHANNELS, 8, (-2,)), StateType(COUNT, 4, (-2,))
    assert dispatch(inside, own, (-2,)) == StateType(CHANNELS, 8, (-2, -4))
    for x, y, context in ((inside, gates, (-2,)), (tokens, own, (-2,)), (tokens, gates, (-2,))):
        assert isinstance(dispatch(x, y, context), Mismatch)


def test_every_block_or_some_is_part_of_what_a_program_is() -> None:
    text = main("out = expert(x, top) branch=routed")
    hashes = set()
    for every in ("", "every 2\n", "every 4\n", "every middle\n"):
        graph = build(parse(text.replace("n2=8\n", f"n2=8\n{every}")))
        assert isinstance(graph, Graph)
        hashes.add(graph.hash)
    assert len(hashes) == 4
