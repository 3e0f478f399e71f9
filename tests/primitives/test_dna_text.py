"""The written forms of a program: both say all of it, and malformed ones are refused."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from primitives import DNA, Instruction, ProgramError, Subroutine, parse, render
from primitives.language.jsonform import from_json, to_json
from primitives.programs.seeds import load_seed, seed_names, seed_text
from search.evolution.mutation import mutate

BANKS = "dims d0=8 d1=1\nconstants c0=0.0 c1=0.5\n"
MAIN = f"{BANKS}main(x, y):\n"
COUNTED = f"{BANKS}counts n0=8 n1=2\nmain(x, y):\n"


@pytest.mark.parametrize("name", seed_names())
def test_seed_programs_round_trip(name: str) -> None:
    dna = load_seed(name)
    assert parse(render(dna)) == dna
    assert render(parse(render(dna))) == render(dna)
    assert from_json(json.loads(json.dumps(to_json(dna)))) == dna
    assert parse(render(dna)).subroutines[0].states == dna.subroutines[0].states


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), name=st.sampled_from(seed_names()), steps=st.integers(1, 60))
def test_mutants_round_trip(seed: int, name: str, steps: int) -> None:
    """Well typed or not: silent genes and dead instructions are written too."""
    rng, dna = random.Random(seed), load_seed(name)
    for _ in range(steps):
        dna, _ = mutate(dna, rng)
    again = from_json(json.loads(json.dumps(to_json(dna))))
    assert parse(render(dna)) == dna == again
    assert [s.states for s in again.subroutines] == [s.states for s in dna.subroutines]


def test_all_fields_and_numbers_round_trip() -> None:
    row = Instruction("ABS", in1=1, in2=0, constant=1, dim=1, branch=16)
    dna = DNA((8, 1), (1e-300, -1.5e30), (Subroutine("main", (row,), ("x", "y", "out")),))
    assert parse(render(dna)) == dna
    assert "out = ABS(y, x) constant=c1 dim=d1 branch=16" in render(dna)


ROUTED = f"""{BANKS}counts n0=8 n1=2
every 2

main(x, y):
  scores = SCORE(x) count=n0
  top = TOP_K(scores) count=n1
  out = expert(x, top) branch=routed

expert(x, y):
  out = CONV 1X1(x) dim=d0
"""


def test_counts_and_routed_calls_round_trip() -> None:
    dna = parse(ROUTED)
    assert dna.counts == (8, 2)
    assert dna.every == 2
    assert dna.subroutines[0].instructions[2] == Instruction(1, 0, 3, branch=0)
    assert render(dna) == ROUTED
    again = from_json(json.loads(json.dumps(to_json(dna))))
    assert again == dna
    data = to_json(dna)
    assert (data["counts"], data["every"]) == ([8, 2], 2)


@pytest.mark.parametrize(("text", "every"), [("", 1), ("every 4\n", 4), ("every middle\n", 0)])
def test_which_blocks_run_the_program_round_trips(text: str, every: int) -> None:
    dna = parse(ROUTED.replace("every 2\n", text))
    assert dna.every == every
    assert parse(render(dna)) == dna
    assert from_json(to_json(dna)) == dna
    alone = parse(f"{BANKS}{text}main(x, y):\n  s = ABS(x)\n")
    assert (alone.every, alone.counts) == (every, ())
    assert parse(render(alone)) == alone


def test_json_of_a_program_without_counts_may_leave_them_out() -> None:
    data = to_json(load_seed("transformer"))
    del data["counts"], data["every"]
    for subroutine in data["subroutines"]:
        for row in subroutine["instructions"]:
            del row["count"]
    assert from_json(data) == load_seed("transformer")


def test_json_may_write_a_constant_as_a_whole_number() -> None:
    data = {**to_json(load_seed("transformer")), "constants": [0, 1, 2, 3]}
    made = from_json(data)
    assert [type(value) for value in made.constants] == [float] * 4
    assert parse(render(made)).constants == made.constants


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 60))
def test_mutants_that_route_round_trip(seed: int, steps: int) -> None:
    rng, dna = random.Random(seed), parse(ROUTED)
    for _ in range(steps):
        dna, _ = mutate(dna, rng)
    assert parse(render(dna)) == dna == from_json(json.loads(json.dumps(to_json(dna))))


def test_left_out_fields_are_the_first() -> None:
    assert parse(MAIN + "  s = ADD(x)\n  t = s(s)\n\ns(a, b):\n  v = MAX(b)\n").subroutines == (
        Subroutine("main", (Instruction("ADD", 0, 0), Instruction(1, 2, 2)), ()),
        Subroutine("s", (Instruction("MAX", 1, 1, 0, 0, 1),), ()),
    )


def test_comments_and_names_of_states_are_not_compared() -> None:
    text = seed_text("transformer")
    assert "#" in text
    other = text.replace("query", "probe").replace("\n", "  # so\n") + "\n# end\n"
    assert parse(other, d_model=32) == load_seed("transformer", 32)


MALFORMED = [
    # text, line, what is wrong, what is allowed
    ("", 1, "two banks", "dims and constants"),
    ("constants c0=0\ndims d0=8\nmain(x, y):", 1, "expected the bank", "dims d0=..."),
    ("dims d1=8\nconstants c0=0\nmain(x, y):", 1, "got 'd1=8'", "expected d0=VALUE"),
    ("dims d0=7\nconstants c0=0\nmain(x, y):", 1, "unknown dim '7'", "1, 2, 4, 8, 12, 16, 24"),
    ("dims d0=wide\nconstants c0=0\nmain(x, y):", 1, "'wide' is not a whole number", "number"),
    ("dims d0=8\nconstants c0=zero\nmain(x, y):", 2, "the constant 'zero'", "rsqrt(dN)"),
    ("dims d0=8\nconstants c0=inf\nmain(x, y):", 2, "constant inf", "any finite one"),
    ("dims d0=8\nconstants\nmain(x, y):", 2, "the bank needs", "at least one value"),
    (f"{BANKS}  s = ADD(x)\n", 3, "expected a subroutine's header", "NAME(X, Y):"),
    (MAIN, 3, "'main' is empty", "needs an instruction"),
    (f"{BANKS}main(x, x):\n  s = ABS(x)\n", 3, "hidden states of 'main'", "same name"),
    (f"{BANKS}Main(x, y):\n  s = ABS(x)\n", 3, "'Main' is not a name", "lower case"),
    (f"{MAIN}  s = ABS(x)\nmain(x, y):\n  s = ABS(x)\n", 5, "two subroutines", "must differ"),
    (f"{MAIN}\n# a comment\n  s <- ABS(x)\n", 6, "cannot read 's <- ABS(x)'", "NAME = OP(INPUT"),
    (f"{MAIN}  s = ABSS(x)\n", 4, "unknown op 'ABSS'; did you mean 'ABS'", "ADD, DIFFERENCE"),
    (f"{MAIN}  s = softmx(x)\nsoftmax(x, y):\n  s = EXP(x)\n", 4, "did you mean 'softmax'", "SIN"),
    (f"{MAIN}  s = main(x)\n", 4, "'main' may only call subroutines below", "below it"),
    (f"{MAIN}  s = f(x)\nf(x, y):\n  s = main(x)\n", 6, "'f' may only call", "below it"),
    (f"{MAIN}  s = ADD(x, norm)\n", 4, "unknown hidden state 'norm'", "allowed: x, y"),
    (f"{MAIN}  s = ADD(x, s)\n", 4, "unknown hidden state 's'", "allowed: x, y"),
    (f"{MAIN}  s = ABS(x)\n  s = ABS(s)\n", 5, "'s' of 'main' is made twice", "twice"),
    (f"{MAIN}  S = ABS(x)\n", 4, "'S' is not a name", "lower case letters, digits"),
    (f"{MAIN}  s = ABS(x) width=d0\n", 4, "cannot read field 'width=d0'", "[branch=N]"),
    (f"{MAIN}  s = ABS(x) dim=d0 dim=d1\n", 4, "cannot read field 'dim=d1'", "[dim=dN]"),
    (f"{MAIN}  s = ABS(x) dim=8\n", 4, "cannot read field 'dim=8'", "dim=dN"),
    (f"{MAIN}  s = ABS(x) dim=d2\n", 4, "the bank has no dim d2", "d0 to d1"),
    (f"{MAIN}  s = MAX(x) constant=c9\n", 4, "the bank has no constant c9", "c0 to c1"),
    (f"{MAIN}  s = ABS(x) branch=3\n", 4, "unknown branch '3'", "1, 2, 4, 8, 16, routed"),
    (f"{MAIN}  s = ABS(x) branch=0\n", 4, "unknown branch '0'", "1, 2, 4, 8, 16, routed"),
    (f"{MAIN}  s = ABS(x) branch=route\n", 4, "unknown branch 'route'", "routed"),
    (f"{MAIN}  s = SCORE(x)\n", 4, "SCORE reads a count", "add one: counts n0=8"),
    (f"{MAIN}  s = SCORE(x) count=n0\n", 4, "no count bank", "add one: counts n0=8"),
    (f"{MAIN}  s = ABS(x) count=n1\n", 4, "the bank has no count n1", "add one: counts n0=8"),
    (f"{COUNTED}  s = SCORE(x) count=n2\n", 5, "the bank has no count n2", "n0 to n1"),
    (f"{COUNTED}  s = SCORE(x) count=8\n", 5, "cannot read field 'count=8'", "count=nN"),
    (f"{COUNTED}  s = SCOR(x) count=n0\n", 5, "unknown op 'SCOR'; did you mean 'SCORE'", "TOP_K"),
    (f"{BANKS}counts n0=3\nmain(x, y):\n  s = ABS(x)\n", 3, "unknown count '3'", "1, 2, 4, 8, 16"),
    (f"{BANKS}counts n0=8.0\nmain(x, y):\n  s = ABS(x)\n", 3, "'8.0' is not", "whole number"),
    (f"{BANKS}counts n1=8\nmain(x, y):\n  s = ABS(x)\n", 3, "got 'n1=8'", "n0=VALUE"),
    (f"{BANKS}counts\nmain(x, y):\n  s = ABS(x)\n", 3, "needs at least one value", "counts n0=8"),
    (f"{BANKS}every 3\nmain(x, y):\n  s = ABS(x)\n", 3, "every 3", "1, 2, 4, middle"),
    (f"{BANKS}every 0\nmain(x, y):\n  s = ABS(x)\n", 3, "every 0", "middle"),
    (f"{BANKS}every\nmain(x, y):\n  s = ABS(x)\n", 3, "cannot read 'every'", "1, 2, 4, middle"),
    (f"{BANKS}every x\nmain(x, y):\n  s = ABS(x)\n", 3, "cannot read 'every x'", "1, 2, 4, middle"),
    (f"{BANKS}every 2\ncounts n0=8\nmain(x, y):\n  s = ABS(x)\n", 4, "header", "NAME(X, Y):"),
    ("dims d0=8\n", 1, "two banks", "dims and constants"),
    ("# only\n\ndims d0=8\n", 3, "two banks", "dims and constants"),
    ("every 2\n", 1, "expected the bank", "dims d0=..."),
    (BANKS, 2, "needs a subroutine", "main(x, y):"),
    (f"{BANKS}counts n0=8\n", 3, "needs a subroutine", "main(x, y):"),
    (f"{BANKS}every 2\n", 3, "needs a subroutine", "main(x, y):"),
    (f"{BANKS}counts n0=8\nevery 2\n\n", 4, "needs a subroutine", "main(x, y):"),
    (f"{MAIN}  s = ABS(x) dim=d{'1' * 5000}\n", 4, "cannot read field", "dim=dN"),
    (f"dims d0={'1' * 5000}\nconstants c0=0\n", 1, "is not a whole number", "number"),
    (f"{BANKS}every {'1' * 5000}\nmain(x, y):\n  s = ABS(x)\n", 3, "cannot read", "middle"),
    ("dims d0=8\nconstants c0=rsqrt(d1)\n", 2, "no dim d1", "allowed: d0 to d0"),
    ("dims d0=8\nconstants c0=rsqrt(d0)\n", 2, "depends on the width", "write a number"),
    ("dims d0=0\nconstants c0=rsqrt(d0)\n", 2, "unknown dim '0'", "1, 2, 4, 8"),
]


@pytest.mark.parametrize(("text", "line", "wrong", "remedy"), MALFORMED)
def test_malformed_programs_are_refused(text: str, line: int, wrong: str, remedy: str) -> None:
    with pytest.raises(ProgramError) as caught:
        parse(text, source="some.dna")
    message = str(caught.value)
    assert message.startswith(f"some.dna:{line}: ")
    assert wrong in message
    assert remedy in message
    assert "\n" not in message


SOME_WIDTHS = (8, 32, 64, 128, 192, 1024)
HEAD = "dims d0=8 d1=1 d2=12\nconstants c0={}\nmain(x, y):\n  s = MAX(x) constant=c0\n"


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("rsqrt(d1)", lambda d: (d / 8) ** -0.5),
        ("sqrt(d0)", lambda d: d**0.5),
        ("d2", lambda d: 1.5 * d),
        ("1/d1", lambda d: 8 / d),
        ("-0.5*rsqrt(d1)/sqrt(d0)*3e-1", lambda d: -0.15 * (d / 8) ** -0.5 * d**-0.5),
        ("2*3/4", lambda d: 1.5),
    ],
)
def test_constants_may_be_expressions_of_dims(
    expression: str, value: Callable[[float], float]
) -> None:
    for width in SOME_WIDTHS:
        dna = parse(HEAD.format(expression), d_model=width)
        assert dna.constants == (pytest.approx(value(width), rel=1e-12),)
        assert parse(render(dna)) == dna == from_json(json.loads(json.dumps(to_json(dna))))


@pytest.mark.parametrize(
    "expression",
    ["", "*", "2*", "/d1", "1/0", "sqrt(2)", "sqrt(d0", "rsqrt d0", "d", "d-1", "d0+1", "d0**2",
     "__import__('os')", "c1", "sqrt(sqrt(d0))", "1//2", "1,5", "d9"],
)  # fmt: skip
def test_other_expressions_are_refused(expression: str) -> None:
    with pytest.raises(ProgramError) as caught:
        parse(HEAD.format(expression), "some.dna", 64)
    assert str(caught.value).startswith("some.dna:2: ")


@st.composite
def broken_text(draw: st.DrawFn) -> str:
    """A seed program's file after a few accidents: lines and words lost, doubled or exchanged, and
    words put there that belong elsewhere."""
    lines = seed_text(draw(st.sampled_from(seed_names()))).split("\n")
    if draw(st.booleans()):
        lines = [line for line in lines if draw(st.booleans()) or line.startswith("dims")]
    for _ in range(draw(st.integers(0, 6))):
        if not lines:
            break
        words = [word for line in lines for word in re.findall(r"\w+|[^\w\s]", line)]
        at, other = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
        kind = draw(st.sampled_from(("drop", "cut", "exchange", "double", "word", "noise")))
        if kind == "drop":
            del lines[at]
        elif kind == "cut":
            lines = lines[:at]
        elif kind == "exchange":
            lines[at], lines[other] = lines[other], lines[at]
        elif kind == "double":
            lines.insert(at, lines[other])
        else:
            parts = re.split(r"(\W)", lines[at])
            place = draw(st.integers(0, len(parts) - 1))
            parts[place] = draw(st.sampled_from(words or [""]) if kind == "word" else st.text())
            lines[at] = "".join(parts)
    return "\n".join(lines)


@settings(max_examples=400, deadline=None)
@given(text=broken_text())
def test_whatever_is_wrong_with_a_text_is_a_program_error_with_its_line(text: str) -> None:
    try:
        dna = parse(text, "some.dna", 64)
    except ProgramError as error:
        match = re.match(r"some\.dna:(\d+): .", str(error))
        assert match and 1 <= int(match[1]) <= max(1, len(text.splitlines())), str(error)
    else:
        assert parse(render(dna)) == dna == from_json(json.loads(json.dumps(to_json(dna))))


_ACCIDENTS: tuple[object, ...] = (
    None, True, -1, 10**5000, 1.5, float("inf"), "", "x", "main", [], {}, [1, "x"], {"op": "ABS"},
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_whatever_is_wrong_with_a_json_form_is_a_program_error(data: st.DataObject) -> None:
    """A key is lost, or a value anywhere in the tree is replaced by another."""
    tree: object = to_json(load_seed(data.draw(st.sampled_from(seed_names()))))
    for _ in range(data.draw(st.integers(1, 3))):
        place, depth = tree, data.draw(st.integers(0, 4))
        while isinstance(place, dict | list) and place:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(keys))
            if depth == 0 or not isinstance(place[key], dict | list):
                if data.draw(st.booleans()):
                    del place[key]
                else:
                    place[key] = deepcopy(data.draw(st.sampled_from(_ACCIDENTS)))
                break
            place, depth = place[key], depth - 1
    try:
        dna = from_json(tree)  # type: ignore[arg-type]
    except ProgramError:
        return
    assert parse(render(dna)) == dna


def changed(path: tuple[str | int, ...], value: object) -> object:
    data = to_json(load_seed("transformer"))
    place: object = data
    for key in path[:-1]:
        place = place[key]  # type: ignore[index]
    place[path[-1]] = value  # type: ignore[index]
    return data


FIRST = ("subroutines", 0, "instructions", 0)


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        ([], "not a program"),
        ({"dims": [8]}, "constants"),
        (changed(("dims",), [8.5]), "8.5 is not int"),
        (changed(("dims",), ["8"]), "'8' is not int"),
        (changed(("constants",), ["x"]), "'x' is not int or float"),
        (changed(("constants", 0), 10**400), "too large"),
        (changed(("constants", 0), float("nan")), "nan is not a number"),
        (changed(("subroutines",), []), "at least one subroutine"),
        (changed(("subroutines", 0, "name"), 3), "3 is not str"),
        (changed(("subroutines", 0, "states"), ["x", "y"]), "name each hidden state once"),
        (changed((*FIRST, "width"), 3), "width"),
        (changed((*FIRST, "in1"), "0"), "'0' is not int"),
        (changed((*FIRST, "in1"), 0.0), "0.0 is not int"),
        (changed((*FIRST, "in1"), 2), "only 0 to 1 exist"),
        (changed((*FIRST, "in2"), -1), "only 0 to 1 exist"),
        (changed((*FIRST, "branch"), 3), "allowed: 1, 2, 4, 8, 16, routed"),
        (changed((*FIRST, "count"), 1), "the bank has no count n1"),
        (changed((*FIRST, "count"), "0"), "'0' is not int"),
        (changed((*FIRST, "op"), "SCORE"), "the program has no count bank"),
        (changed(("counts",), [3]), "unknown count '3'"),
        (changed(("counts",), [8.0]), "8.0 is not int"),
        (changed(("every",), 3), "every 3 is not allowed"),
        (changed(("every",), True), "True is not int"),
        (changed((*FIRST, "op"), True), "True is not str or int"),
        (changed((*FIRST, "op"), 0), "only a later one may be called"),
        (changed((*FIRST, "op"), "SOFTMAX"), "unknown primitive 'SOFTMAX'"),
    ],
)
def test_malformed_json_is_refused(data: dict[str, object], wrong: str) -> None:
    with pytest.raises(ProgramError) as caught:
        from_json(data)
    assert wrong in str(caught.value)


def test_seed_programs_are_found_by_name() -> None:
    assert {"primer", "primer_ez", "transformer", "switch", "peer"} < {*seed_names()}
    assert list(seed_names()) == sorted(seed_names())
    with pytest.raises(ProgramError, match="did you mean 'transformer'"):
        load_seed("transfomer")
