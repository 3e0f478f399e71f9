"""Python text for exported modules: statements in lines of a length, as a formatter would break
them, and the source of the project's functions that they call.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Template

LINE = 100
"""Characters of a generated line."""

_CHOICE = re.compile(r"(.+) (if run\.training) (else .+)\Z")
_GIVEN = {"Tensor", "Any", "keras", "ops"}
"""Names that every exported module has."""


@cache
def template(name: str) -> Template:
    """A fixed part of what is exported."""
    return Template(
        (files("workers.export") / "templates" / f"{name}.txt").read_text(encoding="utf-8")
    )


def wrapped(code: str, depth: int) -> list[str]:
    """A statement or argument in lines of LINE characters, broken inside its outermost call."""
    margin = " " * depth
    if len(margin + code) <= LINE or "(" not in code:
        return [margin + code]
    target, equals, value = code.rpartition(" = ")
    choice = _CHOICE.match(value)
    if choice and len(inner := f"{margin}    {value}") <= LINE:
        return [f"{margin}{target} = (", inner, f"{margin})"]
    parts = list(choice.groups()) if choice else [f"{part}," for part in _arguments(value)]
    if equals and len(parts) > 1:
        lines = [line for part in parts for line in wrapped(part, depth + 4)]
        return [f"{margin}{target} = (", *lines, f"{margin})"]
    head, _, inside = value.partition("(")
    head = f"{margin}{target}{equals}{head}("
    if ", " in target and len(head) > LINE:
        names = [f"{margin}    {name}," for name in target.split(", ")]
        return [f"{margin}(", *names, *wrapped(f") = {value}", depth)]
    inside, _, tail = inside.rpartition(")")
    lines = [f"{margin}    {inside}"]
    if len(lines[0]) > LINE or head.strip() == "(":
        lines = [line for each in _arguments(inside) for line in wrapped(f"{each},", depth + 4)]
    return [head, *lines, f"{margin}){tail}"]


def _arguments(code: str) -> list[str]:
    """Splits at the commas that lie in no bracket."""
    parts, level = [""], 0
    for letter in code:
        level += (letter in "([") - (letter in ")]")
        if letter == "," and level == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def without_unread(lines: Sequence[str], result: str) -> list[str]:
    """Assignments, with _ for each of two names that no later line reads."""
    kept: list[str] = []
    read = {result}
    for line in reversed(lines):
        target, _, value = line.partition(" = ")
        names = target.split(", ")
        if len(names) > 1:
            names = [name if name in read else "_" for name in names]
        kept.append(f"{', '.join(names)} = {value}")
        read |= set(re.findall(r"\w+", value))
    return kept[::-1]


@dataclass(frozen=True, slots=True)
class _Definition:
    """A top-level statement of a module, and the names that it reads."""

    source: str
    reads: frozenset[str]


def functions(used: Iterable[str]) -> list[str]:
    """Source of the functions of primitives' kernels, routing and balancing that these names need,
    classes and constants included: in their files' order, but each after those that it needs."""
    known, wanted = _definitions(), set(used)
    order: dict[str, None] = {}

    def add(name: str) -> None:
        for needed in known:
            if needed in known[name].reads and needed != name and needed not in order:
                add(needed)
        order[name] = None

    for name in known:
        if name in wanted and name not in order:
            add(name)
    return [known[name].source for name in order]


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
            source = "".join(lines[first - 1 : node.end_lineno])
            source = re.sub(r"  # type: ignore\[[\w-]+\]$", "", source, flags=re.MULTILINE)
            if name not in _GIVEN:
                found[name] = _Definition(source, frozenset(_reads(node)))
    return found


@cache
def _imports() -> frozenset[str]:
    nodes = [node for text in _texts() for node in ast.parse(text).body]
    imports = [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name for node in imports for alias in node.names}
    return frozenset(names - _definitions().keys() - _GIVEN - {"annotations"})


def _texts() -> list[str]:
    from primitives.kernels import balancing, dense, routing

    return [inspect.getsource(module) for module in (dense, routing, balancing)]


def _reads(tree: ast.AST) -> set[str]:
    """Names that are read and nowhere bound; those of annotations too."""
    nodes = list(ast.walk(tree))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    bound = {name.id for name in names if not isinstance(name.ctx, ast.Load)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    return {name.id for name in names} - bound


def _line(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 0))
