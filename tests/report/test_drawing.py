"""Drawings of programs: every node, call and edge is there, and so is what changed."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from xml.etree import ElementTree

import pytest

from primitives.graph.build import Graph, build
from primitives.graph.calls import calls
from primitives.language.dna import DNA
from primitives.language.text import parse, render
from primitives.programs.seeds import load_seed, seed_names
from search.errors import PrimevoError
from search.evolution.mutation import mutate
from search.report import drawing
from tests.cli.command import ROOT
from tests.reference.random_programs import programs, routed_programs

SVG = "{http://www.w3.org/2000/svg}"


def graph(dna: DNA) -> Graph:
    made = build(dna, bidirectional=True)
    assert isinstance(made, Graph)
    return made


def groups(svg: str) -> Counter[str]:
    """How many elements have each class; an element may have several."""
    root = ElementTree.fromstring(svg)
    names = (each.get("class", "").split() for each in root.iter(f"{SVG}g"))
    return Counter(name for several in names for name in several)


def texts(svg: str) -> list[str]:
    found = ElementTree.fromstring(svg).iter(f"{SVG}text")
    return [(each.text or "").replace("\xa0", " ") for each in found]


def check(dna: DNA) -> None:
    nodes, around = graph(dna).nodes, calls(dna, bidirectional=True)
    svg = drawing.svg(dna, "a title")
    found = groups(svg)
    prefixes = {path[:depth] for path in around for depth in range(1, len(path) + 1)}
    assert found["node"] == len(nodes) == len(around)
    assert found["edge"] == sum(len(node.inputs) for node in nodes)
    assert found["cluster"] == len(prefixes)
    assert found["branched"] == sum(path[-1].times != 1 for path in prefixes)
    assert " id=" not in svg and "<title>" not in svg
    shown = Counter(text.strip() for text in texts(svg))
    for path in prefixes:
        assert any(path[-1].subroutine in text for text in shown)


def test_a_weight_that_branches_share_is_marked() -> None:
    marked = {
        name: sum("shared by branches" in text for text in texts(drawing.svg(load_seed(name), "")))
        for name in ("transformer", "multi_query", "peer")
    }
    assert marked == {"transformer": 0, "multi_query": 2, "peer": 2}


@pytest.mark.parametrize("name", seed_names())
def test_seed_programs(name: str) -> None:
    check(load_seed(name))


def test_random_programs() -> None:
    for dna in [*programs(12, seed=4), *routed_programs(12, seed=4)]:
        check(dna)


def test_a_node_lies_in_the_calls_that_the_program_says() -> None:
    dna = load_seed("transformer")
    found = {
        ".".join((*(call.state for call in path), node.op)): [call.times for call in path]
        for node, path in zip(graph(dna).nodes, calls(dna, bidirectional=True), strict=True)
    }
    assert found["heads.weights.EXP"] == [8, 1]
    assert found["renormed.standard.SQUARE"] == [1, 1]
    assert found["fed.active.MAX"] == [1, 1]
    assert found["INPUT"] == []


def test_branches_and_experts_are_named() -> None:
    drawn = texts(drawing.svg(load_seed("switch"), "switch"))
    assert "self_attention, 8 branches" in drawn
    assert "expert, routed to 8 experts" in drawn
    assert {"to experts", "sum by gate", "8 side by side", "switch"} <= set(drawn)


def test_shapes_are_on_edges() -> None:
    drawn = {
        text.strip().partition("  ")[0] for text in texts(drawing.svg(load_seed("switch"), ""))
    }
    times = "\u00d7"
    for shape in ("T * d", "T * 1", "8 * T * d/8", "8 * T * S open", "8 * T * S", "T * 1 of 8",
                  "8 experts * slots * 4d"):  # fmt: skip
        assert shape.replace("*", times) in drawn


class TestChanges:
    PARENT = """
dims d0=8
constants c0=0.0

main(x, y):
  first = CONV 1X1(x) dim=d0
  second = MAX(first) constant=c0
  third = SQUARE(second)
  out = ADD(x, third)
"""

    def changes(self, child: str) -> dict[str, str]:
        marked = drawing._marked(parse(child), parse(self.PARENT))
        return {key[1]: each.mark for key, each in marked.items() if each.mark}

    def test_the_same_program_has_none(self) -> None:
        assert self.changes(self.PARENT) == {}

    def test_what_is_inserted_is_new_and_its_reader_changed(self) -> None:
        child = self.PARENT.replace(
            "third = SQUARE(second)", "more = ABS(second)\n  third = SQUARE(more)"
        )
        assert self.changes(child) == {"main.more": "new", "main.third": "changed"}

    def test_another_value_of_a_subroutine_leaves_the_old_one_as_it_is(self) -> None:
        parent = self.PARENT.replace("first = CONV 1X1(x) dim=d0", "first = part(x)")
        parent += "part(x, y):\n  made = CONV 1X1(x) dim=d0\n"
        child = parent + "  more = ABS(made)\n"
        marked = drawing._marked(parse(child), parse(parent))
        found = {key[1]: each.mark for key, each in marked.items() if each.mark}
        assert found == {"part.more": "new", "main.second": "changed"}

    def test_what_is_removed_is_gone(self) -> None:
        child = self.PARENT.replace("  third = SQUARE(second)\n", "").replace("third", "second")
        assert self.changes(child) == {"main.third": "gone", "main.out": "changed"}

    def test_another_op_or_value_is_a_change(self) -> None:
        child = self.PARENT.replace("SQUARE", "ABS").replace("c0=0.0", "c0=0.5")
        assert self.changes(child) == {"main.second": "changed", "main.third": "changed"}

    def test_inputs_that_may_be_exchanged_are_no_change(self) -> None:
        assert self.changes(self.PARENT.replace("ADD(x, third)", "ADD(third, x)")) == {}

    def test_no_mark_is_no_change(self) -> None:
        """Along random walks: where nothing is marked, the programs are one."""
        rng = random.Random(5)
        marked = 0
        for dna in [*programs(8, seed=6), *routed_programs(8, seed=6)]:
            child, _ = mutate(dna, rng)
            if not isinstance(build(child, bidirectional=True), Graph):
                continue
            marks = [each.mark for each in drawing._marked(child, dna).values()]
            marked += any(marks)
            if not any(marks):
                assert graph(child).hash == graph(dna).hash
            svg = drawing.svg(child, "", dna)
            assert groups(svg)["gone"] >= marks.count("gone")
            assert groups(svg)["new"] == marks.count("new")
        assert marked > 3


def test_a_title_is_text_whatever_it_says() -> None:
    title = '<script>alert(1)</script> & \\N \\l "quoted" ]]>'
    for whole in (title, f"<{title}>"):
        drawn = texts(drawing.svg(load_seed("transformer"), whole))
        assert whole in drawn


def test_pages_draw_no_text_that_is_no_program_and_no_huge_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = render(load_seed("transformer"))
    assert drawing.picture(text) is not None
    assert drawing.picture("main(x, y):\n  out = <script>") is None
    assert drawing.picture(text, "nonsense") is None
    monkeypatch.setattr(drawing, "LARGEST", 35)
    assert drawing.picture(text) is None


def test_a_process_that_draws_ends_quietly() -> None:
    script = "from search.report import drawing; drawing.layout('digraph { a }')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_layout_that_fails_is_told_and_the_next_one_works() -> None:
    with pytest.raises(PrimevoError, match="cannot be drawn: Graphviz fails on it"):
        drawing.layout("digraph { a -> ")
    assert "<svg" in drawing.layout("digraph { a -> b }")
