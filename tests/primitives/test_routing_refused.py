"""Programs that route where they may not are refused with a reason; their neighbours are not."""

from __future__ import annotations

import pytest

from primitives import Graph, IllTyped, build, parse
from primitives.graph.build import COMBINE, DISPATCH

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


def test_every_block_or_some_is_part_of_what_a_program_is() -> None:
    text = main("out = expert(x, top) branch=routed")
    hashes = set()
    for every in ("", "every 2\n", "every 4\n", "every middle\n"):
        graph = build(parse(text.replace("n2=8\n", f"n2=8\n{every}")))
        assert isinstance(graph, Graph)
        hashes.add(graph.hash)
    assert len(hashes) == 4
