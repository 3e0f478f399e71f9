"""What is cut out of a block: masked equals sliced, expected cost equals counted cost.

A masked block is the whole one with scaled weights. Random programs run in float64; the seed
programs in float32, too, as they train.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from keras import ops

from primitives import DNA, Graph, build, parse
from primitives.cutting.cut import cut
from primitives.cutting.masking import masked, scaled
from primitives.cutting.terms import expected, flops_terms, parameter_terms
from primitives.cutting.units import Cuttable, cuttable
from primitives.graph.build import DISPATCH
from primitives.kernels.balancing import Run
from primitives.lowering.cost import flops_of_nodes
from primitives.lowering.dispatch import LoweringOptions
from primitives.lowering.layer import block_function
from primitives.lowering.weights import weight_specs
from primitives.programs.seeds import load_seed, seed_names
from tests.primitives.call_sites import random_weights
from tests.reference.random_programs import LARGE_SEEDS, programs, routed_programs

WIDTH, BATCH, LENGTH, VOCABULARY = 16, 2, 5, 99
OPTIONS = LoweringOptions(BATCH, LENGTH)
SEEDS = [
    pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE_SEEDS)) for name in seed_names()
]
WITHOUT_EXPERTS = {
    "base": "an expert keeps its token",
    "cascade": "one expert",
    "mixture_of_depths": "one expert",
}

pytestmark = pytest.mark.filterwarnings("ignore:You are using a softmax over axis")

Masks = list[npt.NDArray[np.bool_]]


HEADS_IN_STREAM = {"campaign_vanilla", "campaign_conv", "campaign_dense", "campaign_routed"}
"""Seed programs that add heads to a state of the stream, so that they are its channels."""


def found_in(dna: DNA) -> Cuttable:
    graph = build(dna, bidirectional=True)
    assert isinstance(graph, Graph)
    return cuttable(graph, WIDTH)


def some_masks(found: Cuttable, rng: np.random.Generator, addends: float) -> Masks:
    """Masks that keep about half of the units, and this share of addends."""
    masks = []
    for group in found.groups:
        stays = rng.random(group.count) < (addends if group.addend else 0.5)
        if group.dim >= 0:
            stays[rng.integers(group.count)] = True
        masks.append(stays)
    return masks


class Both:
    """A block masked, and the smaller one, on two random sequences."""

    def __init__(self, found: Cuttable, dtype: str, seed: int, kind: str | None = None) -> None:
        rng = np.random.default_rng(seed)
        self.options = LoweringOptions(BATCH, LENGTH, kind=kind)  # type: ignore[arg-type]
        self.found, self.masks = found, some_masks(found, rng, 0.7)
        self.values = [v.astype(dtype) for v in random_weights(found.graph, WIDTH, rng)]
        self.x = rng.standard_normal((BATCH, LENGTH, WIDTH)).astype(dtype)
        self.tokens = rng.integers(0, VOCABULARY, (BATCH, LENGTH), "int32")
        masks = [mask.astype(dtype) for mask in self.masks]
        self.scaled = scaled(found, self.values, masks, np)
        self.masked = masked(found, self.values, masks, np)
        self.cut = cut(found, self.masks)
        self.channels = self.masks[-1] if found.channels else np.ones(WIDTH, np.bool_)

    def run(
        self, graph: Graph, values: object, nudge: float = 0.0, part: object = slice(None)
    ) -> npt.NDArray[np.float64]:
        x = ops.convert_to_tensor(self.x[..., part] * (1 + nudge))
        weights = [ops.convert_to_tensor(value) for value in values]  # type: ignore[attr-defined]
        block = block_function(graph, WIDTH, self.options)
        return np.array(block(x, weights, Run(tokens=self.tokens)))

    def outputs(self, nudge: float = 0.0) -> tuple[npt.NDArray[np.float64], ...]:
        """The channels that stay of what the masked block gives, and what the smaller one does."""
        smaller = self.run(self.cut.graph, self.cut.weights(self.scaled), part=self.channels)
        whole = self.run(self.found.marked.graph, self.masked, nudge)
        return whole[..., self.channels], smaller


def counted(both: Both) -> int:
    """Trainable parameters of the smaller block."""
    specs = weight_specs(both.cut.graph, WIDTH)
    return sum(math.prod(spec.shape) for spec in specs if spec.trainable)


def expected_of(both: Both) -> tuple[float, float]:
    """Parameters and FLOPs that follow from the masks."""
    kept = [mask.astype(np.float64) for mask in both.masks]
    flops = flops_terms(both.found, both.options)
    return expected(parameter_terms(both.found), kept), expected(flops, kept)


@pytest.mark.parametrize("name", SEEDS)
def test_masked_seed_programs_equal_sliced_ones(name: str) -> None:
    found = found_in(load_seed(name, WIDTH))
    both = Both(found, "float32", seed=len(name))
    masked_block, sliced = both.outputs()
    np.testing.assert_allclose(sliced, masked_block, rtol=1e-5, atol=1e-5)
    whole = both.run(found.graph, both.values)[..., both.channels]
    assert np.abs(whole - sliced).max() > 1e-3, "the masks did nothing"
    kinds = {group.kind for group in found.groups}
    routed = any(node.op == DISPATCH for node in found.graph.nodes)
    assert {"hidden", "addend"} <= kinds
    assert ("channels" in kinds) == (name not in HEADS_IN_STREAM)
    assert ("heads" in kinds) == (name not in HEADS_IN_STREAM)
    assert ("experts" in kinds) == (routed and name not in WITHOUT_EXPERTS)
    assert counted(both) == pytest.approx(expected_of(both)[0])


@pytest.mark.parametrize(
    ("family", "count", "seed"),
    [
        ("dense", 24, 7),
        ("routed", 30, 7),
        pytest.param("dense", 200, 8, marks=pytest.mark.slow),
        pytest.param("routed", 90, 8, marks=pytest.mark.slow),
    ],
)
def test_masked_random_programs_equal_sliced_ones(family: str, count: int, seed: int) -> None:
    drawn = {"dense": programs, "routed": routed_programs}[family](count, seed)
    seen: Counter[str] = Counter()
    for number, dna in enumerate(drawn):
        found = found_in(dna)
        if not found.groups:
            seen["nothing to cut"] += 1
            continue
        both = Both(found, "float64", number, ("every", "blocks", "entries")[number % 3])
        parameters, flops = expected_of(both)
        assert counted(both) == pytest.approx(parameters)
        if number % 3 == 0:  # elsewhere padding depends on how many experts there are
            work = sum(flops_of_nodes(both.cut.graph, WIDTH, both.options))
            assert work == pytest.approx(flops)
        with np.errstate(all="ignore"):
            masked_block, sliced = both.outputs()
            nearby = both.outputs(1e-13)[0]
            size = max(1.0, float(np.abs(masked_block).max()))
            steady = np.abs(masked_block - nearby).max() <= 1e-9 * size
        if not (np.isfinite(masked_block).all() and steady):
            continue  # it overflows, or magnifies the smallest changes
        np.testing.assert_allclose(sliced, masked_block, rtol=1e-6, atol=1e-6 * size)
        seen["equal"] += 1
        seen.update({group.kind for group in found.groups})
        seen["told"] += any(group.told for group in found.groups)
    assert seen["equal"] > 0.4 * count, seen
    assert min(seen["hidden"], seen["addend"]) > 0.1 * count, seen
    assert seen["channels"] > 0.3 * count and seen["told"], seen
    assert seen["heads"] and (family == "dense" or seen["experts"]), seen


def test_expected_parameters_are_the_mean_over_masks() -> None:
    """Also where a weight has one dim twice, and where two addends share what they read."""
    found = found_in(
        parse("""
dims d0=8 d1=16
constants c0=0.0

main(x, y):
  shared = SCALE(x)
  wide = CONV 1X1(shared) dim=d1
  again = CONV 1X1(wide) dim=d1
  both = ADD(wide, again)
  first = CONV 1X1(both) dim=d0
  second = CONV 1X1(shared) dim=d0
  halfway = ADD(x, first)
  out = ADD(halfway, second)
""")
    )
    terms, rng = parameter_terms(found), np.random.default_rng(0)
    assert any(len(term.groups) == 2 for term in terms)
    assert any(len(term.live) == 2 for term in terms)
    chances = [rng.uniform(0.2, 0.8, group.count) for group in found.groups]
    draws = [
        expected(terms, [(rng.random(p.shape) < p).astype(float) for p in chances])
        for _ in range(4000)
    ]
    spread = np.std(draws) / math.sqrt(len(draws))
    assert abs(np.mean(draws) - expected(terms, chances)) < 4 * spread


def test_what_cannot_be_cut_says_why() -> None:
    found = found_in(
        parse("""
dims d0=8
constants c0=0.1
counts n0=4

main(x, y):
  scores = SCORE(x) count=n0
  small = Z_LOSS(scores) constant=c0
  narrow = CONV 1X1(small) dim=d0
  powers = EXP(narrow)
  out = ADD(x, powers)
""")
    )
    assert [group.kind for group in found.groups] == ["channels"]
    told = {(each.kind, each.name): each.reason for each in found.whole}
    assert told["hidden", "main.scores"] == "SCORE (main.scores) makes scores of it"
    heads = found_in(load_seed("campaign_dense", WIDTH))
    (reason,) = (each.reason for each in heads.whole if each.kind == "channels")
    assert reason.startswith("they are divided, as heads") and not heads.channels


def test_a_norm_is_over_the_kept_channels() -> None:
    """Against means and variances by hand, of a block that is nothing but a layer norm; its masked
    graph has the whole block's weights beside the marks."""
    found = found_in(
        parse("""
dims d0=8
constants c0=0.0 c1=1e-06

main(x, y):
  mean = RED MEAN(x)
  centred = DIFFERENCE(x, mean)
  squares = SQUARE(centred)
  variance = RED MEAN(squares)
  floored = MAX(variance) constant=c1
  deviation = ABS ROOT(floored)
  out = DIVIDE(centred, deviation)
""")
    )
    stays, x = np.arange(WIDTH) % 3 > 0, np.random.default_rng(0).standard_normal((2, 3, WIDTH))
    weights = masked(found, [], [np.where(stays, 0.7, 0.0)], np)
    block = block_function(found.marked.graph, WIDTH, OPTIONS)
    made = np.array(block(ops.convert_to_tensor(x), [ops.convert_to_tensor(w) for w in weights]))
    kept = x[..., stays]
    expected_norm = (kept - kept.mean(-1, keepdims=True)) / kept.std(-1, keepdims=True)
    np.testing.assert_allclose(made[..., stays], expected_norm, rtol=1e-6)
    nothing = masked(found, [], [np.zeros(WIDTH)], np)  # a draw may leave no channel
    assert all(np.isfinite(each).all() for each in nothing)


def test_a_block_without_addends_is_its_input() -> None:
    found = found_in(load_seed("transformer", WIDTH))
    kept = [np.full(group.count, group.kind != "addend") for group in found.groups]
    assert [node.op for node in cut(found, kept).graph.nodes] == ["INPUT"]


def test_one_unit_has_to_stay() -> None:
    found = found_in(load_seed("transformer", WIDTH))
    kept = [np.full(group.count, bool(group.addend)) for group in found.groups]
    with pytest.raises(ValueError, match="one has to stay"):
        cut(found, kept)
