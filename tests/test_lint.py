"""The code's own rules: ruff, mypy --strict, and imports that run downwards only."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

BELOW = {
    "primitives": {"primitives"},
    "workers": {"primitives", "workers"},
    "search": {"primitives", "workers", "search"},
    "primevo": {"primitives", "workers", "search", "primevo"},
}
FRAMEWORKS = {"tensorflow", "keras", "jax"}


def run(*command: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_ruff_finds_nothing() -> None:
    run("ruff", "check", *BELOW, "tests", "docs")


def test_ruff_would_not_reformat() -> None:
    run("ruff", "format", "--check", *BELOW, "tests", "docs")


@pytest.mark.slow
def test_mypy_strict() -> None:
    run("mypy")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("package", sorted(BELOW))
def test_imports_run_downwards(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    upwards = set(BELOW) - BELOW[package]
    found = {str(path): upwards & set(imports(path)) for path in files}
    assert {path: names for path, names in found.items() if names} == {}


def modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name."""
    paths = [path for package in BELOW for path in (ROOT / package).rglob("*.py")]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in paths
    }


def imported(module: str, path: Path, known: set[str]) -> set[str]:
    """The project's modules that a module imports anywhere, also inside functions and for types
    alone."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & known) or {node.module}
    return found & known - {module}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of a directed graph, or an empty list."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = modules()
    graph = {name: imported(name, path, set(known)) for name, path in known.items()}
    assert circle({"a": {"b"}, "b": {"a"}}), "the check itself finds circles"
    assert circle(graph) == []


def test_no_folders_import_each_other_in_a_circle() -> None:
    """Folders are layers, too: primitives.language and primitives.graph, for example."""
    known = modules()
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        folder = folder_of(name, path)
        below = {folder_of(each, known[each]) for each in imported(name, path, set(known))}
        graph.setdefault(folder, set()).update(below - {folder})
    del (
        graph["primitives"],
        graph["workers"],
        graph["search"],
        graph["primevo"],
    )  # they re-export what is below
    assert circle(graph) == []


def folder_of(module: str, path: Path) -> str:
    """`search.cli` for all that lies below it."""
    parts = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    return ".".join(parts[:2])


def test_search_never_imports_a_framework() -> None:
    found = {str(path): FRAMEWORKS & set(imports(path)) for path in (ROOT / "search").rglob("*.py")}
    assert {path: names for path, names in found.items() if names} == {}
