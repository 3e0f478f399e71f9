"""What `primevo replay` prints, and its exit code."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

from tests.cli.command import data, primevo, refusal


def test_a_campaign_that_is_as_recorded(campaign: Path) -> None:
    assert primevo("replay", "small").stdout == "replayed 30 candidates: all the same\n"
    assert data("replay", "small") == {"candidates": 30, "difference": None, "notes": []}
    assert "no campaign 'smal'; did you mean 'small'" in refusal(3, "replay", "smal")


def test_one_that_is_not(campaign: Path, tmp_path: Path) -> None:
    shutil.copy(campaign / "primevo.db", tmp_path / "a.db")
    connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    connection.execute("UPDATE candidates SET hash = 'no' WHERE id = 20")
    connection.execute("UPDATE campaigns SET versions = NULL")
    connection.close()
    told = primevo("replay", "small", "--storage", f"sqlite:///{tmp_path}/a.db", code=1)
    start = "replayed 19 candidates; then candidate 20: its hash is recorded as no and derived as "
    assert told.stdout.startswith(start) and len(told.stdout.splitlines()) == 1
    assert "was not noted" in told.stderr
