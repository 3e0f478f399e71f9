"""A program's canonical graph as Graphviz source or as SVG."""

from __future__ import annotations

from graphviz import Digraph, ExecutableNotFound

from primitives.graph.build import CONCAT, INPUT, Graph, Node
from primitives.ops.table import PRIMITIVES
from search.errors import PrimevoError


def dot(graph: Graph, title: str) -> str:
    """Graphviz source: one box a node, edges from inputs down; boxes with weights are tinted."""
    return str(_digraph(graph, title).source)


def svg(graph: Graph, title: str) -> str:
    """The same drawn; needs Graphviz's `dot` program, which is no Python package."""
    try:
        return str(_digraph(graph, title).pipe(format="svg", encoding="utf-8"))
    except ExecutableNotFound:
        raise PrimevoError(
            "svg needs Graphviz's program dot (apt install graphviz, brew install graphviz); "
            "-o dot needs nothing"
        ) from None


def _digraph(graph: Graph, title: str) -> Digraph:
    drawing = Digraph(
        graph_attr={"label": title, "labelloc": "t", "fontname": "Helvetica"},
        node_attr={"shape": "box", "style": "rounded,filled", "fontname": "Helvetica"},
    )
    last = len(graph.nodes) - 1
    for index, node in enumerate(graph.nodes):
        end = index in (0, last)
        colour = "#cfe8cf" if end else "#fde9c9" if _has_weights(node) else "#eeeeee"
        drawing.node(f"n{index}", _label(node), fillcolor=colour)
        for place, source in enumerate(node.inputs):
            several = len(node.inputs) > 1
            drawing.edge(f"n{source}", f"n{index}", label=("x", "y")[place] if several else "")
    return drawing


def _label(node: Node) -> str:
    value = f" {node.value:g}" if node.op == CONCAT or _reads_value(node) else ""
    heads = f" in {' x '.join(map(str, node.context))} branches" if node.context else ""
    name = node.name if node.op != INPUT else "the block's input"
    return f"{node.op}{value}{heads}\n{name}\n{node.type}"


def _reads_value(node: Node) -> bool:
    row = PRIMITIVES.get(node.op)
    return row is not None and bool({"constant", "dim"} & set(row.reads))


def _has_weights(node: Node) -> bool:
    row = PRIMITIVES.get(node.op)
    return row is not None and row.weight is not None
