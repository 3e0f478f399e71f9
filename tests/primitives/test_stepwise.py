"""A block run a few positions at a time gives what a pass over all of them gives.

Random programs run in float64, as in `test_properties`; the seed programs in float32, too.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from keras import ops

from primitives import DNA, Graph, build, parse
from primitives.kernels.balancing import Run
from primitives.lowering.dispatch import LoweringOptions
from primitives.lowering.layer import lower, lower_step
from primitives.lowering.stepwise import not_stepwise
from primitives.ops.table import EACH, PRIMITIVES
from primitives.programs.seeds import load_seed, seed_names
from tests.primitives.call_sites import random_weights
from tests.reference.random_programs import LARGE_SEEDS, programs, routed_programs

WIDTH, BATCH, LENGTH, ROOM, VOCABULARY = 8, 2, 6, 7, 99
SPLITS = ((1,) * LENGTH, (4, 1, 1), (1, 3, 2))
"""How many positions come at once. The cache has room for one more than there are."""
SEEDS = [name for name in seed_names() if isinstance(build(load_seed(name, WIDTH)), Graph)]

pytestmark = pytest.mark.filterwarnings("ignore:You are using a softmax over axis")


class Steps:
    """One program run both ways on two random sequences."""

    def __init__(self, dna: DNA, dtype: str, length: int = LENGTH, rotary: bool = False) -> None:
        graph = build(dna)
        assert isinstance(graph, Graph)
        rng = np.random.default_rng(5)
        self.dtype, self.length = dtype, length
        values = random_weights(graph, WIDTH, rng)
        self.weights = [ops.convert_to_tensor(value, dtype) for value in values]
        x = rng.standard_normal((BATCH, length, WIDTH))
        self.x = ops.convert_to_tensor(x, dtype)
        self.tokens = rng.integers(0, VOCABULARY, (BATCH, length), "int32")
        self.block = lower(
            graph, WIDTH, LoweringOptions(BATCH, length, rotary=rotary), False
        ).function
        self.step = lower_step(graph, WIDTH, rotary)

    def whole(self, x: object = None) -> np.ndarray:
        x = self.x if x is None else x
        return np.array(self.block(x, self.weights, Run(tokens=self.tokens)))

    def parts(self, split: tuple[int, ...], room: int = ROOM) -> np.ndarray:
        cache = self.step.empty_cache(BATCH, room, WIDTH, self.dtype)
        start, found = 0, []
        for count in split:
            end = start + count
            run = Run(tokens=self.tokens[:, start:end])
            x = self.x[:, start:end]
            shapes = [tuple(kept.shape) for kept in cache]
            y, cache = self.step.function(x, self.weights, cache, start, run)
            assert shapes == [tuple(kept.shape) for kept in cache]
            assert all(kept.dtype == self.x.dtype for kept in cache)
            found.append(np.array(y))
            start = end
        assert start == self.length
        return np.concatenate(found, axis=1)


@pytest.mark.parametrize(
    "name",
    [pytest.param(it, marks=[pytest.mark.slow] * (it in LARGE_SEEDS)) for it in SEEDS],
)
def test_seed_programs_step_as_they_run(name: str) -> None:
    """In float32, as exports compute."""
    steps = Steps(load_seed(name, WIDTH), "float32")
    whole = steps.whole()
    for split in ((LENGTH,), (3, 1, 1, 1)):
        np.testing.assert_allclose(steps.parts(split), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "count", "seed"),
    [
        ("dense", 14, 41),
        ("routed", 8, 41),
        pytest.param("dense", 120, 43, marks=pytest.mark.slow),
        pytest.param("routed", 40, 43, marks=pytest.mark.slow),
    ],
)
def test_random_programs_step_as_they_run(kind: str, count: int, seed: int) -> None:
    drawn = {"dense": programs, "routed": routed_programs}[kind](count, seed)
    seen: Counter[str] = Counter()
    for number, dna in enumerate(drawn):
        graph = build(dna)
        assert isinstance(graph, Graph)
        if not_stepwise(graph):
            seen["not stepwise"] += 1
            continue
        rotary = number % 2 == 1
        steps = Steps(dna, "float64", rotary=rotary)
        whole, nearby = steps.whole(), steps.whole(steps.x * (1 + 1e-13))
        size = max(1.0, float(np.abs(whole).max()))
        if not np.isfinite(whole).all() or np.abs(whole - nearby).max() > 1e-9 * size:
            continue  # it magnifies the smallest changes
        found = steps.parts(SPLITS[number % len(SPLITS)])
        np.testing.assert_allclose(found, whole, rtol=1e-6, atol=1e-6 * size)
        seen["equal"] += 1
        seen["kept"] += bool(steps.step.kept)
        seen["rotated"] += rotary and "rotated(" in steps.step.code
    assert seen["equal"] > 0.7 * count, seen
    assert seen["rotated"] > 0.15 * count or kind == "routed", seen
    assert seen["kept"] > 0.4 * count or kind == "routed", seen
    assert seen["not stepwise"] < 0.1 * count, seen


BANKS = "dims d0=8 d1=1\nconstants c0=0.0 c1=0.5\n"
SCORES = "  query = CONV 1X1(x) dim=d0\n  scores = T-MAT MUL(query, x)\n"
PARTS = {
    "running sums and products of visible scores": """
  seen = MASK(scores)
  sums = CUM SUM(seen)
  tame = TANH(sums)
  products = CUM PROD(tame)
  out = MAT MUL(products, x)
""",
    "scores of scores": """
  seen = MASK(scores)
  again = T-MAT MUL(seen, seen)
  shut = MASK(again)
  out = MAT MUL(shut, x)
""",
    "scores times scores": """
  seen = MASK(scores)
  powers = EXP(seen)
  mixed = MAT MUL(seen, powers)
  mean = RED MEAN(mixed)
  least = RED MIN(mixed)
  both = MULTIPLY(mean, least)
  out = ADD(x, both)
""",
    "statistics of visible scores": """
  seen = MASK(scores)
  mean = RED MEAN(seen)
  product = RED PROD(seen)
  largest = RED MAX(seen)
  sum = ADD(mean, product)
  all = ADD(sum, largest)
  out = MULTIPLY(x, all)
""",
    "convolutions in heads": """
  wide = CONV 7X1(x) dim=d1 branch=8
  deep = DCONV 3X1(wide) branch=2
  out = CONV 3X1(deep) dim=d0
""",
    "running sums in heads": """
  sums = CUM SUM(x)
  split = CONV 1X1(sums) dim=d1 branch=8
  prods = CUM PROD(x)
  out = ADD(split, prods)
""",
}


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("name", PARTS)
def test_what_looks_back_steps_as_it_runs(name: str, rotary: bool) -> None:
    lines = PARTS[name].removeprefix("\n")
    dna = parse(f"{BANKS}main(x, y):\n{SCORES if 'scores' in lines else ''}{lines}")
    steps = Steps(dna, "float64", length=11, rotary=rotary)
    whole = steps.whole()
    assert steps.step.kept and np.abs(whole).max() > 1e-3
    for split in ((11,), (5, 1, 1, 4)):
        found = steps.parts(split, room=13)
        np.testing.assert_allclose(found, whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "lines",
    [
        ("sums = CUM SUM(scores)", "seen = MASK(sums)", "out = MAT MUL(seen, x)"),
        ("seen = MASK(scores)", "mixed = MAT MUL(seen, scores)", "shut = MASK(mixed)",
         "out = MAT MUL(shut, x)"),
    ],
)  # fmt: skip
def test_what_needs_scores_of_later_keys_is_not_stepwise(lines: tuple[str, ...]) -> None:
    """Its row t has entries that only later positions give: it is causal, but looks back at rows
    with entries that were not there yet."""
    graph = build(parse(f"{BANKS}main(x, y):\n{SCORES}" + "".join(f"  {it}\n" for it in lines)))
    assert isinstance(graph, Graph)
    assert "key positions that no MASK has closed" in not_stepwise(graph)
    with pytest.raises(ValueError, match="no MASK has closed"):
        lower_step(graph, WIDTH)


def test_a_state_is_kept_once() -> None:
    """Keys and values of one state share what is kept, and so do convolutions of equal length."""
    dna = parse(
        f"{BANKS}main(x, y):\n{SCORES}  seen = MASK(scores)\n  mixed = MAT MUL(seen, x)\n"
        "  one = DCONV 3X1(mixed)\n  two = DCONV 3X1(mixed)\n  out = ADD(one, two)\n"
    )
    graph = build(dna)
    assert isinstance(graph, Graph)
    kept = lower_step(graph, WIDTH).kept
    assert [(each.name, each.rows) for each in kept] == [
        ("x_so_far", None),
        ("main_mixed_recent", 2),
    ]


def test_a_primitive_that_does_not_say_how_it_steps_is_not_stepwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dataclasses import replace

    graph = build(load_seed("transformer", WIDTH))
    assert isinstance(graph, Graph) and not not_stepwise(graph)
    monkeypatch.setitem(PRIMITIVES, "SCALE", replace(PRIMITIVES["SCALE"], stepwise=None))
    assert "SCALE" in not_stepwise(graph) and "does not say" in not_stepwise(graph)


def test_every_row_but_those_of_bidirectional_tasks_steps() -> None:
    without = {name for name, row in PRIMITIVES.items() if row.stepwise is None}
    assert without == {"TOP_T", "PRIORITY"}
    assert PRIMITIVES["ADD"].stepwise is EACH
