"""Programs that would diverge are found before they are trained; those that people wrote, and
random changes that train well, are not."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from primitives import build, parse, render
from primitives.graph.build import Graph
from primitives.language.dna import DNA
from primitives.lowering.divergence import Scale, divergence
from primitives.lowering.layer import block_function, initial_weights
from primitives.lowering.numeric import ONE_THREAD, _matmul
from primitives.lowering.weights import weight_specs
from primitives.ops.table import PRIMITIVES
from primitives.programs.seeds import load_seed, seed_names
from tests.reference.random_programs import programs

TEXT = render(load_seed("transformer"))
SCALE = Scale(d_model=256, sequence_length=256, layers=6, batch_size=32)


def graph_of(dna: DNA | str) -> Graph:
    graph = build(parse(dna) if isinstance(dna, str) else dna)
    assert isinstance(graph, Graph), graph
    return graph


def changed(old: str, new: str) -> Graph:
    assert TEXT.count(old) == 1, old
    return graph_of(TEXT.replace(old, new))


RELU = "out = MAX(x) constant=c0"

SINGULAR = {
    "the logarithm of what has both signs": changed(RELU, "out = LOG(x)"),
    "a quotient by what has both signs": changed(RELU, "out = DIVIDE(x, x)"),
    "the root of a ReLU, which is often 0": changed(
        RELU, "r = MAX(x) constant=c0\n  out = ABS ROOT(r)"
    ),
}
FINE = {
    "the logarithm of what is positive": changed(
        RELU, "e = EXP(x)\n  out = LOG(e)"
    ),
    "the root of what is at least a constant": changed(
        RELU, "r = MAX(x) constant=c2\n  out = ABS ROOT(r)"
    ),
    "scores that are masked before their exponential": changed(
        "exponential = EXP(x)\n  visible = MASK(exponential)",
        "exponential = MASK(x)\n  visible = EXP(exponential)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SINGULAR)
def test_a_pole_at_zero_is_found_where_a_batch_has_very_many_values(case: str) -> None:
    graph = SINGULAR[case]
    assert divergence(graph, SCALE) == "a singularity at zero"
    assert divergence(graph, Scale(32, 32, 2, 16)) is None


@pytest.mark.parametrize("case", FINE)
def test_what_stays_away_from_zero_passes(case: str) -> None:
    assert divergence(FINE[case], SCALE) is None


def test_values_that_grow_are_found_at_any_size() -> None:
    grown = changed(RELU, "e = EXP(x)\n  f = EXP(e)\n  out = EXP(f)")
    for scale in (SCALE, Scale(16, 8, 1, 1)):
        assert divergence(grown, scale) == "values grow out of bounds"


@pytest.mark.parametrize("rotary", [False, True])
def test_no_seed_program_is_refused(rotary: bool) -> None:
    for name in seed_names():
        graph = build(load_seed(name), bidirectional=True)
        assert isinstance(graph, Graph)
        assert divergence(graph, SCALE, rotary) is None, name


def test_what_grows_in_the_lowered_program_is_found() -> None:
    """Random programs through two blocks of the real lowering, in 32 bits, with other random
    numbers, which alone may make the difference once. More than that is found, since values may
    shrink again before a block ends."""
    scale, grew, missed, found = Scale(16, 12, 2, 1), 0, 0, 0
    for dna in programs(60, seed=9):
        graph, rng = graph_of(dna), np.random.default_rng(0)
        function, specs = block_function(graph, scale.d_model), weight_specs(graph, scale.d_model)
        x = rng.standard_normal((1, scale.sequence_length, scale.d_model), np.float32) * 0.35
        for _ in range(scale.layers):
            x = np.asarray(function(x, initial_weights(specs, rng)))
        mine = divergence(graph, scale)
        found += mine is not None
        if not np.abs(x).max() < 1e12:
            grew += 1
            missed += mine != "values grow out of bounds"
    assert grew >= 4 and missed <= 1 and found < 20


def test_what_cannot_be_run_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    row = dataclasses.replace(PRIMITIVES["TANH"], name="GELU", code="ops.gelu({x})")
    monkeypatch.setitem(PRIMITIVES, "GELU", row)
    assert divergence(changed(RELU, "out = GELU(x)"), SCALE) is None


@pytest.mark.parametrize("shapes", [((64, 256), (256, 256)), ((8, 64, 4), (8, 4, 64))])
def test_products_of_matrices_stay_in_one_thread(shapes: tuple[tuple[int, ...], ...]) -> None:
    """What BLAS is given at a time is below the size from which it starts threads."""
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(shape) for shape in shapes)
    sizes: list[int] = []

    class Watched(np.ndarray[Any, Any]):
        def __matmul__(self, other: Any) -> Any:
            sizes.append(self.shape[-2] * self.shape[-1] * other.shape[-1])
            return np.asarray(self) @ other

    made = _matmul(x.view(Watched), y)
    np.testing.assert_allclose(made, x @ y, rtol=1e-12, atol=1e-12)
    assert max(sizes) <= ONE_THREAD
