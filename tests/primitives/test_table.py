"""Every row of the table says all that is asked of it, also rows that are added later."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from itertools import product

import pytest

from primitives import DNA, Graph, IllTyped, Instruction, Subroutine, build
from primitives.graph.liveness import TRAITS
from primitives.kernels import balancing, dense, routing
from primitives.ops.state import CHANNELS, COUNT, ENTRIES, KEYS, StateType
from primitives.ops.table import PRIMITIVES, Primitive, infer
from primitives.ops.types import elementwise
from primitives.registry import RegistrationError

KINDS = [
    StateType(CHANNELS, 8), StateType(COUNT, 1), StateType(COUNT, 4), StateType(KEYS, 0),
    StateType(KEYS, 0, closed=True), StateType(ENTRIES, 2, domain=4),
]  # fmt: skip
KERNELS = {
    name
    for module in (dense, routing, balancing)
    for name, _ in inspect.getmembers(module, inspect.isfunction)
}
FIELDS = {"x": "in1", "xi": "in1", "n": "in1", "y": "in2", "yi": "in2", "m": "in2", "c": "constant"}


def results(row: Primitive) -> Iterator[tuple[StateType, StateType, StateType]]:
    """Inputs that fit the row in some task, and the result."""
    for x, y in product(KINDS, KINDS if row.binary else KINDS[:1]):
        made = infer(row.name, x, y, 2, (), bidirectional=True)
        if isinstance(made, StateType):
            yield x, y, made


@pytest.mark.parametrize("row", PRIMITIVES.values(), ids=lambda row: row.name)
def test_rows_are_complete(row: Primitive) -> None:
    assert PRIMITIVES[row.name] is row and row.tf
    assert row.meaning and "\n" not in row.meaning and not row.meaning.endswith(".")
    order = ("in1", "in2", "constant", "dim", "count")
    assert [field for field in order if field in row.reads] == list(row.reads)
    assert list(results(row)), "nothing fits it"
    assert row.flops(16, 8, 8) >= 0
    assert not row.commutative or row.binary
    assert row.random == (row.training == "random")


@pytest.mark.parametrize("row", PRIMITIVES.values(), ids=lambda row: row.name)
def test_expressions_read_what_the_row_reads(row: Primitive) -> None:
    for code in (row.code, *row.variants.values()):
        slots = set(re.findall(r"{(\w+)}", code))
        assert slots <= {*FIELDS, "k", "w", "v", "name"}
        fields = {FIELDS[slot] for slot in slots & FIELDS.keys()}
        silent = {"in1"} if row.name in ("HASH", "TASK") else set()  # its shape is the tokens'
        if row.name == "CONSISTENCY":  # the trainer reads its constant
            fields.add("constant")
        assert fields - silent == {"in1", "in2", "constant"} & {*row.reads}
        assert bool(slots & {"w", "v"}) == (row.weight is not None)
        assert "k" not in slots or "count" in row.reads
        called = set(re.findall(r"(?<![\w.])(\w+)\(", code))
        assert called <= KERNELS | {function.__name__ for function in row.functions}


@pytest.mark.parametrize("row", PRIMITIVES.values(), ids=lambda row: row.name)
def test_what_a_mask_hides_has_a_value_wherever_it_is_summed(row: Primitive) -> None:
    """Where a closed state goes in and something else comes out, or time runs, `hidden` is said."""
    for x, y, made in results(row):
        for field, state, fill in zip(("in1", "in2"), (x, y), row.hidden, strict=True):
            if field in row.reads and state.closed and not made.closed:
                assert fill is not None, f"{row.name} on {x}, {y}"


@pytest.mark.parametrize("row", PRIMITIVES.values(), ids=lambda row: row.name)
def test_indices_come_from_somewhere(row: Primitive) -> None:
    for x, y, made in results(row):
        if made.axis == ENTRIES and not row.makes_indices:
            read = (y,) if row.reads_indices else (x, y)[: 1 + row.binary]
            assert (made.size, made.domain) in [(state.size, state.domain) for state in read]


def doubled(x: object) -> object:
    return x


DOUBLE = Primitive(
    "DOUBLE", "2 * x", ("in1",), "x twice", lambda x, y, size, context: elementwise(x),
    lambda contracted, read, made: made, "doubled({x})", functions=(doubled,),
)  # fmt: skip


@pytest.fixture
def added() -> Iterator[Primitive]:
    yield PRIMITIVES.register(DOUBLE)
    PRIMITIVES.pop("DOUBLE")
    TRAITS.pop("DOUBLE", None)


def program(op: str) -> DNA:
    rows = (Instruction(op, 0), Instruction(op, 0), Instruction("ADD", 2, 3))
    return DNA((8,), (0.0,), (Subroutine("main", rows, ("x", "y", "a", "b", "out")),))


def test_a_row_that_is_added_later_is_a_primitive_as_any_other(added: Primitive) -> None:
    graph, other = build(program("DOUBLE")), build(program("ABS"))
    assert isinstance(graph, Graph) and isinstance(other, Graph)
    assert [node.op for node in graph.nodes] == ["INPUT", "DOUBLE", "ADD"]
    assert graph.hash != other.hash
    assert not added.routing and PRIMITIVES["DOUBLE"] is added


def test_a_name_is_given_once(added: Primitive) -> None:
    assert PRIMITIVES.register(added) is added
    with pytest.raises(RegistrationError, match="primitive 'ADD' exists already"):
        PRIMITIVES.register(Primitive("ADD", *["x"] * 3, *[None] * 2, "x"))  # type: ignore[arg-type]


def test_rows_keep_their_order() -> None:
    names = list(PRIMITIVES)
    assert (names[0], names[38], names[39]) == ("ADD", "DCONV 31X1", "SCORE")
    assert [name for name, row in PRIMITIVES.items() if row.routing] == names[39:-1]
    assert [name for name, row in PRIMITIVES.items() if row.marks] == names[-1:] == ["REMEMBER"]
    assert isinstance(build(program("TOP_T")), IllTyped)
