"""Folders to run the command line in."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.cli import running
from tests.cli.command import CONFIG, primevo
from tests.cli.instant import InstantPool


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with the database of a finished campaign `small`, and what launch printed."""
    folder = tmp_path_factory.mktemp("campaign")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(running, "Pool", InstantPool)
        patch.delenv("PRIMEVO_STORAGE", raising=False)
        (folder / "small.yaml").write_text(CONFIG)
        return folder, primevo("launch", "small.yaml").stdout


@pytest.fixture
def campaign(finished: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The finished campaign's folder, as the current one."""
    monkeypatch.chdir(finished[0])
    return finished[0]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a config and no database, as the current one; no worker may start."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRIMEVO_STORAGE", raising=False)
    monkeypatch.setattr(running, "Pool", None)
    (tmp_path / "small.yaml").write_text(CONFIG)
    return tmp_path
