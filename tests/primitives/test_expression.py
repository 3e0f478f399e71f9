"""Code as records: read from the table's templates, changed, and written as a formatter would."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from primitives.graph.build import build
from primitives.language.text import parse
from primitives.lowering.emit import emit
from primitives.lowering.expression import (
    Assignment,
    Call,
    Choice,
    Function,
    Hole,
    Literal,
    Name,
    Tuple,
    call,
    filled,
    mentioned,
    template,
    with_functions,
)
from primitives.lowering.layer import block_function
from primitives.lowering.render import line, lines, source
from primitives.ops.table import PRIMITIVES, Primitive

CODES = [code for row in PRIMITIVES.values() for code in (row.code, *row.variants.values())]


@pytest.mark.parametrize("code", sorted(set(CODES)))
def test_a_template_is_written_as_it_was_read(code: str) -> None:
    names = ("x", "y", "xi", "yi", "n", "m", "c", "k", "w", "v")
    values = {name: Name(f"{name}_value") for name in names} | {"name": Literal("a_weight")}
    by_format = code.format(**{name: f"{name}_value" for name in names}, name="a_weight")
    assert source(filled(template(code), values)) == by_format


@pytest.mark.parametrize(
    "code",
    ["f(a, b=-1)[..., None, 1:]", "(a + 2) * b", "a**-0.5", "(a * 2) ** -0.5", "-(a + b)",
     "f(x).dtype", "f((a,), (1, 2))", "a[:, b]", "g(a if b.c else d)", "a > 0", "f(\"t\", True)"],
)  # fmt: skip
def test_all_that_a_row_may_say_is_read_and_written(code: str) -> None:
    assert ast.dump(ast.parse(source(template(code)))) == ast.dump(ast.parse(code))


@pytest.mark.parametrize("code", ["lambda x: {x}", "[{x}]", "f(*{x})", "{x}(1)", "{x} < 1 < 2"])
def test_what_a_row_cannot_say_is_named(code: str) -> None:
    with pytest.raises(ValueError, match="put it into a function"):
        template(code)


def test_a_hole_that_nothing_fills_is_named() -> None:
    with pytest.raises(ValueError, match=r"nothing was given for \{w\}"):
        source(template("project(x, {w})"))
    assert template('f({x}, "{name}")') == Call("f", (Hole("x"), Hole("name")))


def test_what_code_mentions() -> None:
    made = call("outer", call("ops.exp", Name("self.w")), Function("inner"), Name("x"))
    assert mentioned(made).functions == {"outer", "inner"}
    assert mentioned(made).variables == {"self", "x"}
    assert mentioned(call("run.loads.append", 1)).variables == {"run"}


def test_functions_are_exchanged_by_name_wherever_they_are_called() -> None:
    made = with_functions(template("f(project(x, w), f(1))"), {"project": "other", "f": "g"})
    assert source(made) == "g(other(x, w), g(1))"
    assert source(with_functions(Name("project"), {"project": "other"})) == "project"


LONG = "a_long_name_of_a_state"
STATEMENTS = [
    Assignment("y", call("f", Name("x"))),
    Assignment(("y",), call("f", Name("x"))),
    Assignment(("y", "z"), Tuple((Name("x"), Name("w")))),
    Assignment(None, call("run.loads.append", Name("x"))),
    Assignment("y", call("f", *[Name(LONG)] * 4)),
    Assignment("y", call("f", *[Name(LONG)] * 5, axis=-1)),
    Assignment(("y", "z"), Tuple(tuple(call("f", *[Name(LONG)] * n) for n in (2, 5)))),
    Assignment("y", Choice(call("f", *[Name(LONG)] * 2), Name("run.training"), Name(LONG * 2))),
    Assignment("y", Choice(call("f", *[Name(LONG)] * 5), Name("run.training"), Name(LONG))),
    Assignment(tuple(f"{LONG}_{n}" for n in range(5)), call("f", Tuple((Name("x"),)))),
    Assignment("y", template(f"f({LONG}, {LONG}, {LONG}, {LONG})[..., None]")),
    Assignment("y", call("f", Tuple((Name(LONG),) * 5), call("g", *[Name(LONG)] * 5))),
]


def test_statements_are_broken_as_a_formatter_breaks_them(tmp_path: Path) -> None:
    body = "".join(f"{each}\n" for it in STATEMENTS for each in lines(it, 4, 100))
    for statement in STATEMENTS:
        written = "\n".join(lines(statement, 0, 100))
        assert ast.dump(ast.parse(written)) == ast.dump(ast.parse(line(statement)))
    file = tmp_path / "code.py"
    file.write_text(f"def function():\n{body}")
    rules = ["--isolated", "--no-cache", "--line-length", "100", "--diff"]
    command = [sys.executable, "-m", "ruff", "format", *rules, str(file)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_names_that_nobody_reads_are_left_out_of_several() -> None:
    assert line(Assignment(("y", "z"), Name("x")).without(frozenset("z"))) == "y, _ = x"
    assert line(Assignment("z", Name("x")).without(frozenset("z"))) == "z = x"


def triple(x):
    return 3 * x


class Tripled(Primitive):
    """A row that brings its own function along."""

    functions = (triple,)


def program(state: str = "out") -> SimpleNamespace:
    """A block whose only operation is TRIPLE."""
    dna = parse(f"dims d0=8\nconstants c0=0.0\nmain(x, y):\n  {state} = ABS(x)\n")
    nodes = [node._replace(op="TRIPLE") if node.op == "ABS" else node for node in build(dna).nodes]
    return SimpleNamespace(nodes=tuple(nodes), hash="triple")


def row(code: str) -> Tripled:
    like = PRIMITIVES["ABS"]
    return Tripled("TRIPLE", "3 x", ("in1",), "3 x", like.rule, like.flops, code)


def test_a_row_may_bring_a_function_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRIMITIVES, "TRIPLE", row("triple({x})"))
    made = block_function(program(), 8)(np.ones((1, 2, 8), np.float32), [])
    np.testing.assert_allclose(made, 3.0)
    assert emit(program(), 8).row_functions == (triple,)


def test_a_rows_function_cannot_take_a_kernels_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRIMITIVES, "TRIPLE", row("triple({x})"))
    monkeypatch.setattr(triple, "__name__", "attention")
    with pytest.raises(ValueError, match=r"'attention' of primitive 'TRIPLE'.*rename it"):
        emit(program(), 8)


def test_an_export_carries_the_source_of_a_rows_function() -> None:
    from workers.export.code import functions

    (made,) = functions(["triple"], [triple])
    assert made == "def triple(x):\n    return 3 * x\n"
