"""The code's own rules: ruff, mypy --strict, and imports that run downwards only."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

BELOW = {
    "primitives": {"primitives"},
    "workers": {"primitives", "workers"},
    "search": {"primitives", "workers", "search"},
}
FRAMEWORKS = {"tensorflow", "keras", "jax"}


def run(*command: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_ruff_finds_nothing() -> None:
    run("ruff", "check", *BELOW, "tests")


def test_ruff_would_not_reformat() -> None:
    run("ruff", "format", "--check", *BELOW, "tests")


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


def test_search_never_imports_a_framework() -> None:
    found = {str(path): FRAMEWORKS & set(imports(path)) for path in (ROOT / "search").rglob("*.py")}
    assert {path: names for path, names in found.items() if names} == {}
