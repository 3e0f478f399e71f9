"""A campaign records its plug-ins' versions, and says so when they are others on resume.

To be added to tests/plugins/test_config.py once launch and resume use the column.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from search.cli import running
from search.storage.store import Store
from tests.cli.command import CONFIG, primevo
from tests.cli.instant import InstantPool
from tests.plugins.conftest import Write
from workers import plugins


def test_a_campaign_records_versions_and_resume_tells_of_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRIMEVO_STORAGE", raising=False)
    monkeypatch.setattr(running, "Pool", InstantPool)
    write("primevo_a.py", "__version__ = '1'\ndef register(): pass")
    (tmp_path / "small.yaml").write_text("plugins: [primevo_a]\n" + CONFIG)
    with monkeypatch.context() as patch:  # the campaign is interrupted before it begins
        patch.setattr("search.cli.commands.campaign._run", lambda *arguments: None)
        primevo("launch", "small.yaml")
    with Store.open("sqlite:///primevo.db") as store:
        assert list(store.campaign("small").plugins) == [{"name": "primevo_a", "version": "1"}]
    plugins._versions.clear()
    del sys.modules["primevo_a"]
    write("primevo_a.py", "__version__ = '22'\ndef register(): pass")
    told = primevo("resume", "small").stderr
    assert "plug-in 'primevo_a' was at version 1 when" in told
    assert "and is at 22 now" in told
