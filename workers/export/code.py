"""Python text for exported modules: the fixed parts, and the source of the functions that a layer
calls, with all that those need.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Template
from textwrap import dedent
from typing import Any

from primitives.kernels import kernel_modules

LINE = 100
"""Characters of a generated line."""

_GIVEN = {"Tensor", "Any", "keras", "ops"}
"""Names that every exported module has."""


@cache
def template(name: str) -> Template:
    """A fixed part of what is exported."""
    return Template(
        (files("workers.export") / "templates" / f"{name}.txt").read_text(encoding="utf-8")
    )


def plain(text: str) -> str:
    """Text in one line that means nothing special in a docstring or in Markdown."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(re.sub(r'[\\"`|<>]', "'", printable).split())


@dataclass(frozen=True, slots=True)
class _Definition:
    """A top-level statement of a module, and the names that it reads."""

    source: str
    reads: frozenset[str]


def functions(used: Iterable[str], own: Sequence[Callable[..., Any]] = ()) -> list[str]:
    """The source of the functions of these names and of all that they need: kernels, their helpers,
    constants and classes in their files' order, but each after those that it needs; then the `own`
    functions of primitives, which plug-ins bring."""
    brought = [_own(function) for function in own if function.__name__ in set(used)]
    wanted = set(used).union(*(definition.reads for definition in brought))
    known = _definitions()
    order: dict[str, None] = {}

    def add(name: str) -> None:
        for needed in known:
            if needed in known[name].reads and needed != name and needed not in order:
                add(needed)
        order[name] = None

    for name in known:
        if name in wanted and name not in order:
            add(name)
    return [known[name].source for name in order] + [each.source for each in brought]


def _own(function: Callable[..., Any]) -> _Definition:
    """The definition of a function as its file has it."""
    source = dedent(inspect.getsource(function))
    return _Definition(_without_remarks(source), frozenset(_reads(ast.parse(source))))


def imported(sources: Iterable[str]) -> set[str]:
    """Which of the names that the modules import from elsewhere these sources read."""
    names = {name for source in sources for name in _reads(ast.parse(source))}
    return names & _imports()


@cache
def _definitions() -> dict[str, _Definition]:
    found: dict[str, _Definition] = {}
    for text in _texts():
        lines = text.splitlines(keepends=True)
        for node in ast.parse(text).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                name, first = node.name, min([node, *node.decorator_list], key=_line).lineno
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name, first = node.targets[0].id, node.lineno
            else:
                continue
            source = _without_remarks("".join(lines[first - 1 : node.end_lineno]))
            if name not in _GIVEN:
                found[name] = _Definition(source, frozenset(_reads(node)))
    return found


@cache
def _imports() -> frozenset[str]:
    nodes = [node for text in _texts() for node in ast.parse(text).body]
    imports = [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name for node in imports for alias in node.names}
    return frozenset(names - _definitions().keys() - _GIVEN - {"annotations"})


def _without_remarks(source: str) -> str:
    """Source without what is said in it to a type checker."""
    return re.sub(r"  # type: ignore\[[\w-]+\]$", "", source, flags=re.MULTILINE)


def _texts() -> list[str]:
    return [inspect.getsource(module) for module in kernel_modules()]


def _reads(tree: ast.AST) -> set[str]:
    """Names that are read and nowhere bound; those of annotations too."""
    nodes = list(ast.walk(tree))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    bound = {name.id for name in names if not isinstance(name.ctx, ast.Load)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    return {name.id for name in names} - bound


def _line(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 0))
