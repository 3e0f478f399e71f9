"""The six mutations: what each one changes, and that what Primer found is one of them away."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections import Counter
from collections.abc import Iterable

import pytest

from primitives import build, parse, render
from primitives.language.dna import COUNT_VOCABULARY, DNA, verify
from primitives.language.naming import derived, fresh, stale
from primitives.ops.table import PRIMITIVES
from primitives.programs.seeds import load_seed, seed_names
from search.evolution.mutation import DEFAULT_PROBABILITIES, MUTATIONS, Mutation, mutate

SMALL = parse(
    """
    dims d0=8 d1=2
    constants c0=0.0

    main(x, y):
      a = CONV 1X1(x) dim=d0
      b = MAX(a) constant=c0
      c = ADD(x, b)
      out = helper(c)

    helper(x, y):
      out = TANH(x)
    """
)


def children(name: str, count: int, dna=SMALL):
    rng = random.Random(5)
    return [MUTATIONS[name].change(dna, rng) for _ in range(count)]


@pytest.mark.parametrize("name", MUTATIONS)
@pytest.mark.parametrize("seed_program", seed_names())
def test_children_are_well_formed_and_often_new(name, seed_program):
    dna, rng = load_seed(seed_program), random.Random(1)
    made = [MUTATIONS[name].change(dna, rng) for _ in range(60)]
    for child in made:
        verify(child)
        assert parse(render(child)) == child
    assert sum(child != dna for child in made) > 30
    walked = dna
    for _ in range(60):
        walked = verify(MUTATIONS[name].change(walked, rng))


def test_delete_removes_one_instruction_and_its_readers_read_on():
    for child in children("delete", 40):
        if child != SMALL:
            assert child.length == SMALL.length - 1
    without_b = parse(render(SMALL).replace("  b = MAX(a) constant=c0\n", "").replace("b)", "a)"))
    assert without_b in children("delete", 80)
    assert all(len(c.subroutines[1].instructions) == 1 for c in children("delete", 40))


def test_insert_puts_a_new_state_where_it_is_read():
    for child in children("insert", 200):
        assert child.length == SMALL.length + 1
        index = 0 if len(child.subroutines[0].instructions) == 5 else 1
        mine, old = child.subroutines[index], SMALL.subroutines[index]
        name = next(state for state in mine.states if state not in old.states)
        state = mine.states.index(name)
        read = any(state in (row.in1, row.in2) for row in mine.instructions)
        assert read or state == len(mine.states) - 1
        assert [s for s in mine.states if s != name] == list(old.states)


def test_field_changes_at_most_one_field_of_one_instruction():
    for child in children("field", 200):
        rows = zip(_rows(child), _rows(SMALL), strict=True)
        changed = [sum(x != y for x, y in zip(new, old, strict=True)) for new, old in rows]
        assert sum(changed) <= 1


def test_swap_exchanges_two_operations_and_leaves_the_wiring():
    for child in children("swap", 60):
        assert Counter(row[0] for row in _rows(child)) == Counter(row[0] for row in _rows(SMALL))
        for new, old in zip(_rows(child), _rows(SMALL), strict=True):
            assert (new.in1, new.in2) == (old.in1, old.in2)


def test_bank_changes_one_bank_value_only():
    for child in children("bank", 60):
        assert child.subroutines == SMALL.subroutines
        old, new = (*SMALL.dims, *SMALL.constants), (*child.dims, *child.constants)
        assert sum(a != b for a, b in zip(old, new, strict=True)) <= 1
    assert len({child.constants for child in children("bank", 60)}) > 10


class Drawn(random.Random):
    """Draws the constant's slot, then these numbers."""

    def __init__(self, *normal: float) -> None:
        super().__init__(0)
        self.normal = list(normal)

    def randrange(self, *_: int) -> int:  # type: ignore[override]
        return len(SMALL.dims)

    def gauss(self, mu: float = 0.0, sigma: float = 1.0) -> float:
        return mu + sigma * self.normal.pop(0)


def test_a_constant_is_scaled_and_moved() -> None:
    """c becomes c * 10^X + Y, in six digits."""
    dna = dataclasses.replace(SMALL, constants=(2.0,))
    assert MUTATIONS["bank"].change(dna, Drawn(1.0, 0.5)).constants == (20.5,)
    assert MUTATIONS["bank"].change(dna, Drawn(-0.5, -3.0)).constants == (-2.36754,)


ROUTED = parse(
    """
    dims d0=8 d1=2
    constants c0=0.0
    counts n0=8 n1=2

    main(x, y):
      scores = SCORE(x) count=n0
      gates = TOP_K(scores) count=n1
      out = expert(x, gates) branch=routed

    expert(x, y):
      out = CONV 1X1(x) dim=d0
    """
)


def test_only_programs_with_counts_are_given_experts():
    routing = {name for name, row in PRIMITIVES.items() if row.routing}
    acausal = {name for name, row in PRIMITIVES.items() if row.bidirectional}
    for dna, expected in ((SMALL, set()), (ROUTED, routing - acausal)):
        made = [
            MUTATIONS[name].change(dna, random.Random(i)) for name in MUTATIONS for i in range(1500)
        ]
        assert {row.op for child in made for row in _rows(child)} & routing == expected
        branches = {row.branch for child in made for row in _rows(child)}
        assert (0 in branches) == bool(expected)
        assert {child.every for child in made} == ({0, 1, 2, 4} if expected else {1})
        for child in made[::10]:
            verify(child)


def test_bank_changes_counts_and_which_blocks_run_the_program():
    for child in children("bank", 200, ROUTED):
        assert child.subroutines == ROUTED.subroutines
        old = (*ROUTED.dims, *ROUTED.constants, *ROUTED.counts, ROUTED.every)
        new = (*child.dims, *child.constants, *child.counts, child.every)
        assert sum(a != b for a, b in zip(old, new, strict=True)) <= 1
    made = children("bank", 400, ROUTED)
    assert {child.counts[0] for child in made} == set(COUNT_VOCABULARY)


def test_field_changes_which_count_is_read():
    counts = {row.count for child in children("field", 300, ROUTED) for row in _rows(child)[:2]}
    assert counts == {0, 1}


@pytest.mark.parametrize(
    ("dna", "expected"), [(SMALL, "204c9121c4c84b97"), (ROUTED, "ac38da40faa3cfab")]
)
def test_the_same_seed_gives_the_same_children_as_ever(dna, expected):
    """Campaigns of earlier versions go on as they would have. A primitive more in the table, from
    which ops are drawn, is a good reason for other children."""
    rng = random.Random(7)
    assert digest(mutate(dna, rng) for _ in range(1000)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("insert_fitting", "3ce8eb193b8551a6"),
        ("field_fitting", "6b4b4d680c17392c"),
        ("share", "23e01f0c4cd19660"),
        ("remember", "b96e0024a0bbb95e"),
    ],
)
def test_mutations_that_look_give_the_same_children_as_ever(name, expected):
    """Of programs that share weights, in heads and in a router, and after a few steps from them."""
    made, rng = [], random.Random(7)
    for seed_program in ("grouped_query", "peer"):
        dna = load_seed(seed_program)
        for _ in range(40):
            made.append((MUTATIONS[name].change(dna, rng), name))
            dna = made[-1][0] if rng.random() < 0.2 else dna
    assert digest(made) == expected


def digest(made: Iterable[tuple[DNA, str]]) -> str:
    """Of children and the mutations that made them, but for names of states."""
    found = hashlib.sha256()
    for child, name in made:
        genes = [tuple(map(tuple, subroutine.instructions)) for subroutine in child.subroutines]
        banks = (child.dims, child.constants, child.counts, child.every)
        found.update(repr((name, *banks, genes)).encode())
    return found.hexdigest()[:16]


def twice(dna: DNA, rng: random.Random) -> DNA:
    return MUTATIONS["insert"].change(MUTATIONS["insert"].change(dna, rng), rng)


def test_a_plug_ins_mutation_is_used_where_it_is_named():
    from search.config.schema import SearchSpec
    from tests.search.instant import make_config

    MUTATIONS.register(Mutation("twice", twice, "two instructions more"))
    try:
        spec = make_config(mutations={"twice": 1.0, "swap": 0.0}).search
        child, name = mutate(SMALL, random.Random(0), spec.mutations)
        assert (name, child.length) == ("twice", SMALL.length + 2)
        assert set(make_config().search.mutations) == set(DEFAULT_PROBABILITIES)
        assert len(DEFAULT_PROBABILITIES) == 6 and "twice" in MUTATIONS
        with pytest.raises(ValueError, match="unknown mutation 'twise'; did you mean 'twice'"):
            SearchSpec(candidates=1, mutations={"twise": 1.0}, budget=spec.budget)
    finally:
        del MUTATIONS["twice"]


def test_a_primitive_that_is_added_later_is_inserted(monkeypatch):
    row = dataclasses.replace(PRIMITIVES["TANH"], name="GELU")
    monkeypatch.setitem(PRIMITIVES, "GELU", row)
    made = [MUTATIONS["insert"].change(ROUTED, random.Random(i)) for i in range(400)]
    assert "GELU" in {instruction.op for child in made for instruction in _rows(child)}
    dna = next(c for c in made if "GELU" in {instruction.op for instruction in _rows(c)})
    assert [MUTATIONS["field"].change(dna, random.Random(i)) for i in range(50)]


def test_probabilities_choose_the_mutation():
    rng = random.Random(0)
    assert {mutate(SMALL, rng, {"swap": 1.0})[1] for _ in range(10)} == {"swap"}
    drawn = Counter(mutate(SMALL, rng)[1] for _ in range(1200))
    assert set(drawn) == set(DEFAULT_PROBABILITIES) and min(drawn.values()) > 130


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (  # squared ReLU
            "out = MAX(x) constant=c0",
            "rectified = MAX(x) constant=c0\n  out = SQUARE(rectified)",
        ),
        (  # a depthwise convolution after each query, key and value projection
            "out = CONV 1X1(x) dim=d1",
            "projected = CONV 1X1(x) dim=d1\n  out = DCONV 3X1(projected)",
        ),
    ],
)
def test_what_primer_found_is_one_insert_away_from_the_transformer(before, after):
    seed = load_seed("transformer")
    wanted = build(parse(render(seed).replace(before, after))).hash
    rng = random.Random(0)
    for _ in range(8000):
        child = MUTATIONS["insert"].change(seed, rng)
        graph = build(child)
        if getattr(graph, "hash", None) == wanted:
            return
    pytest.fail("8,000 inserts did not make it")


def _rows(dna):
    return [row for subroutine in dna.subroutines for row in subroutine.instructions]


def test_a_new_op_gives_its_state_its_name():
    changed = 0
    for child in children("field", 300):
        for subroutine, old in zip(child.subroutines, SMALL.subroutines, strict=True):
            rows = zip(subroutine.instructions, old.instructions, strict=True)
            for position, (row, before) in enumerate(rows):
                name, former = (each.states[2 + position] for each in (subroutine, old))
                if row.op == before.op:
                    assert name == former
                else:
                    assert name == fresh(derived(row.op, SMALL.subroutines), old.states)
                    changed += 1
    assert changed > 50


def test_states_that_swap_take_their_names_along():
    for child in children("swap", 60):
        for subroutine, old in zip(child.subroutines, SMALL.subroutines, strict=True):
            made, before = (
                {name: row.op for name, row in zip(each.states[2:], each.instructions, strict=True)}
                for each in (subroutine, old)
            )
            assert made == before


@pytest.mark.parametrize("seed_program", seed_names())
def test_names_never_go_stale(seed_program):
    dna, rng = load_seed(seed_program), random.Random(2)
    for _ in range(150):
        dna, _ = mutate(dna, rng)
        for subroutine in dna.subroutines:
            for name, row in zip(subroutine.states[2:], subroutine.instructions, strict=True):
                assert not stale(name, row.op, dna), render(dna)
