"""Modules that only a test knows, and tables that forget what a test has registered."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from primitives.ops.table import PRIMITIVES
from primitives.registry import Registry
from search.campaign.gates import GATES
from search.evolution.mutation import MUTATIONS
from workers import plugins
from workers.data.corpora import CORPORA
from workers.machine.backends import BACKENDS
from workers.spec.metrics import METRICS
from workers.spec.objectives import OBJECTIVES

TABLES: tuple[Registry[Any], ...] = (
    BACKENDS, CORPORA, GATES, METRICS, MUTATIONS, OBJECTIVES, PRIMITIVES,
)  # fmt: skip

EXAMPLE = Path(__file__).parent / "example"

Write = Callable[..., None]


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Search path, imported modules, loaded plug-ins and tables are afterwards what they were."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(plugins, "_versions", {})
    modules, rows = set(sys.modules), [set(table) for table in TABLES]
    yield
    for name in [name for name in set(sys.modules) - modules if name.startswith("primevo_")]:
        del sys.modules[name]
    for table, names in zip(TABLES, rows, strict=True):
        for name in set(table) - names:
            del table[name]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a module into a folder that is on this process' search path only."""
    folder = tmp_path / "modules"
    folder.mkdir()
    sys.path.append(str(folder))

    def write(path: str, text: str) -> None:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    return write


@pytest.fixture
def announce(write: Write) -> Callable[[str, str, str], None]:
    """Writes what an installed distribution of version 2.5 leaves that announces a plug-in."""

    def announce(distribution: str, name: str, module: str) -> None:
        folder = f"{distribution.replace('-', '_')}-2.5.dist-info"
        write(f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 2.5\n")
        write(f"{folder}/top_level.txt", f"{module.partition('.')[0]}\n")
        write(f"{folder}/entry_points.txt", f"[primevo.plugins]\n{name} = {module}\n")

    return announce


@pytest.fixture
def example() -> None:
    """The example package can be imported, by this process alone."""
    sys.path.append(str(EXAMPLE))
