"""Programs that would see the future are refused with a reason; their causal neighbours are not."""

from __future__ import annotations

import pytest

from primitives import Graph, IllTyped, build, parse

BANKS = "dims d0=8 d1=1\nconstants c0=0.0 c1=0.5\n"
SCORES = "  scores = T-MAT MUL(x, x)\n"
REDUCTION = "a reduction over open key positions reads the future; MASK the state first"
PRODUCT = "MAT MUL over open key positions reads the future; MASK the first input first"
SCORING = "T-MAT MUL over open key positions reads the future; MASK both states first"
WEIGHTS = "weights over key positions would fix the sequence length"
BRANCHED = "a branched instruction must give channels; key positions cannot be concatenated"


def main(*lines: str) -> str:
    return f"{BANKS}main(x, y):\n{SCORES}" + "".join(f"  {line}\n" for line in lines)


LEAKS = {
    "softmax without a mask": (
        main(
            "exponential = EXP(scores)",
            "total = RED SUM(exponential)",
            "weights = DIVIDE(exponential, total)",
            "out = MAT MUL(weights, x)",
        ),
        REDUCTION, "main.total",
    ),
    "softmax masked after it is normalised": (
        main(
            "exponential = EXP(scores)",
            "total = RED SUM(exponential)",
            "weights = DIVIDE(exponential, total)",
            "visible = MASK(weights)",
            "out = MAT MUL(visible, x)",
        ),
        REDUCTION, "main.total",
    ),
    "maximum over all keys subtracted before the mask": (
        main(
            "largest = RED MAX(scores)",
            "lowered = DIFFERENCE(scores, largest)",
            "exponential = EXP(lowered)",
            "visible = MASK(exponential)",
            "out = MAT MUL(visible, x)",
        ),
        REDUCTION, "main.largest",
    ),
    "gate from the mean score": (main("mean = RED MEAN(scores)", "out = ADD(mean, x)"), REDUCTION,
                                 "main.mean"),
    "gate from the smallest score": (main("s = RED MIN(scores)", "out = ADD(s, x)"), REDUCTION,
                                     "main.s"),
    "gate from the product of scores": (main("s = RED PROD(scores)", "out = ADD(s, x)"), REDUCTION,
                                        "main.s"),
    "attention without a mask": (main("out = MAT MUL(scores, x)"), PRODUCT, "main.out"),
    "linear attention, masked too late": (
        main("mixed = MAT MUL(scores, scores)", "seen = MASK(mixed)", "out = MAT MUL(seen, x)"),
        PRODUCT, "main.mixed",
    ),
    "masked scores applied to open ones, then summed": (
        main("seen = MASK(scores)", "mixed = MAT MUL(seen, scores)", "s = RED SUM(mixed)",
             "out = ADD(s, x)"),
        REDUCTION, "main.s",
    ),
    "similarity of open score rows": (
        main("again = T-MAT MUL(scores, scores)", "seen = MASK(again)", "out = MAT MUL(seen, x)"),
        SCORING, "main.again",
    ),
    "similarity of masked rows with open ones": (
        main("seen = MASK(scores)", "again = T-MAT MUL(seen, scores)", "shut = MASK(again)",
             "out = MAT MUL(shut, x)"),
        SCORING, "main.again",
    ),
    "similarity of masked rows, not masked again": (
        main("seen = MASK(scores)", "again = T-MAT MUL(seen, seen)", "out = MAT MUL(again, x)"),
        PRODUCT, "main.out",
    ),
    "a masked state transposed by multiplying from the right": (
        main("seen = MASK(scores)", "turned = T-MAT MUL(x, seen)", "shut = MASK(turned)",
             "out = MAT MUL(shut, x)"),
        "T-MAT MUL contracts feature axes that differ", "main.turned",
    ),
    "running sum of open scores": (
        main("sums = CUM SUM(scores)", "s = RED MAX(sums)", "out = ADD(s, x)"),
        REDUCTION, "main.s",
    ),
    "open scores joined to open scores": (
        main("twice = ADD(scores, scores)", "out = MAT MUL(twice, x)"), PRODUCT, "main.out",
    ),
    "linear map over keys": (
        main("seen = MASK(scores)", "mapped = CONV 1X1(seen) dim=d0", "out = ADD(mapped, x)"),
        WEIGHTS, "main.mapped",
    ),
    "convolution of open scores": (
        main("smooth = DCONV 3X1(scores)", "seen = MASK(smooth)", "out = MAT MUL(seen, x)"),
        WEIGHTS, "main.smooth",
    ),
    "spatial gate, a learned factor a key": (
        main("seen = MASK(scores)", "gated = SCALE(seen)", "out = MAT MUL(gated, x)"),
        WEIGHTS, "main.gated",
    ),
    "a learned offset a key": (
        main("biased = SHIFT(scores)", "seen = MASK(biased)", "out = MAT MUL(seen, x)"),
        WEIGHTS, "main.biased",
    ),
    "heads' scores side by side": (
        main("wide = T-MAT MUL(x, x) branch=4", "seen = MASK(wide)", "out = MAT MUL(seen, x)"),
        BRANCHED, "main.wide",
    ),
    "heads' masked weights side by side": (
        main("wide = attend(x) branch=8", "out = MAT MUL(wide, x)")
        + "\nattend(x, y):\n  query = CONV 1X1(x) dim=d1\n  scores = T-MAT MUL(query, query)\n"
        "  weights = MASK(scores)\n",
        BRANCHED, "main.wide",
    ),
    "scores as the block's output": (main("seen = MASK(scores)"), "the block must give", "main"),
    "a mask over channels": (
        main("masked = MASK(x)", "out = ADD(masked, x)"),
        "MASK needs a state over key positions", "main.masked",
    ),
    "mixing positions by their channels": (
        main("out = MAT MUL(x, x)"),
        "MAT MUL needs its first input over key positions", "main.out",
    ),
    "a leak two calls down": (
        f"{BANKS}main(x, y):\n  out = outer(x)\n\nouter(x, y):\n  mixed = inner(x, x) branch=2\n"
        "  half = CONV 1X1(mixed) dim=d0\n  out = ADD(half, x)\n\n"
        "inner(x, y):\n  scores = T-MAT MUL(x, y)\n"
        "  out = MAT MUL(scores, y)\n",
        PRODUCT, "main.out > outer.mixed > inner.out",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEAKS)
def test_leaks_are_refused_by_name(name: str) -> None:
    text, reason, where = LEAKS[name]
    made = build(parse(text))
    assert isinstance(made, IllTyped)
    assert made.reason.startswith(reason)
    assert made.where == where
    assert str(made) == f"{made.where}: {made.reason}"


@pytest.mark.parametrize("name", LEAKS)
def test_in_bidirectional_tasks_they_are_no_leaks(name: str) -> None:
    """What was refused for the future's sake is accepted there; what would fix the sequence length
    or fits nothing is not."""
    text, reason, _ = LEAKS[name]
    made = build(parse(text), bidirectional=True)
    assert isinstance(made, Graph) == (reason in (REDUCTION, PRODUCT, SCORING)), made


CAUSAL = {
    "exponential, then mask": main(
        "e = EXP(scores)", "seen = MASK(e)", "s = RED SUM(seen)", "w = DIVIDE(seen, s)",
        "out = MAT MUL(w, x)",
    ),
    "mask, then exponential": main(
        "seen = MASK(scores)", "e = EXP(seen)", "s = RED SUM(e)", "w = DIVIDE(e, s)",
        "out = MAT MUL(w, x)",
    ),
    "maximum of visible scores": main(
        "seen = MASK(scores)", "top = RED MAX(seen)", "gap = DIFFERENCE(seen, top)",
        "out = MAT MUL(gap, x)",
    ),
    "open scores joined to masked ones": main(
        "seen = MASK(scores)", "both = MULTIPLY(scores, seen)", "out = MAT MUL(both, x)",
    ),
    "attention over attention": main(
        "seen = MASK(scores)", "twice = MAT MUL(seen, seen)", "out = MAT MUL(twice, x)",
    ),
    "similarity of masked rows, masked again": main(
        "seen = MASK(scores)", "again = T-MAT MUL(seen, seen)", "shut = MASK(again)",
        "out = MAT MUL(shut, x)",
    ),
    "running sum, then mask": main(
        "sums = CUM SUM(scores)", "seen = MASK(sums)", "out = MAT MUL(seen, x)",
    ),
    "a leak that nothing reads": main("leak = MAT MUL(scores, x)", "out = ABS(x)"),
}  # fmt: skip


@pytest.mark.parametrize("name", CAUSAL)
def test_their_causal_neighbours_are_not(name: str) -> None:
    one, other = (build(parse(CAUSAL[name]), bidirectional=mode) for mode in (False, True))
    assert isinstance(one, Graph) and isinstance(other, Graph)
    assert (one.hash, one.nodes) == (other.hash, other.nodes)
