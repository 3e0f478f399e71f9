"""Where campaigns from Python are tried out."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.cli import running
from tests.cli.command import CONFIG
from tests.cli.instant import InstantPool


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a config, as the current one; workers answer at once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRIMEVO_STORAGE", raising=False)
    monkeypatch.setattr(running, "Pool", InstantPool)
    (tmp_path / "small.yaml").write_text(CONFIG)
    return tmp_path
