"""Modules that only a test knows, and tables that forget what a test has registered."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workers import plugins
from workers.data.corpora import CORPORA

EXAMPLE = Path(__file__).parent / "example"

Write = Callable[..., None]


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Search path, imported modules, loaded plug-ins and tables are afterwards what they were."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(plugins, "_versions", {})
    modules, corpora = set(sys.modules), dict(CORPORA)
    yield
    for name in [name for name in set(sys.modules) - modules if name.startswith("primevo_")]:
        del sys.modules[name]
    for name in set(CORPORA) - set(corpora):
        del CORPORA[name]


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
