"""`primevo ui` as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from search.ui.server import _listening
from tests.cli.command import ROOT, refusal
from tests.ui.serving import get


def test_it_serves_until_it_is_interrupted(campaign: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "search.cli", "ui", "--port", "0"],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:")
        assert "small" in get(address).text
        assert get(f"{address}campaigns/small").code == 200
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (0, "")
    finally:
        process.kill()


def test_only_this_machine_reaches_it(campaign: Path) -> None:
    with _listening(0) as listener:
        address, port = listener.getsockname()
        assert address == "127.0.0.1"
        told = refusal(1, "ui", "--port", port)
    assert f"--port {port}: Address already in use; choose another one, or 0" in told


def test_a_missing_database_is_told_at_once(empty: Path) -> None:
    assert "primevo.db: no such file" in refusal(3, "ui", "--port", "0")


def test_a_missing_extra_is_named(campaign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("search.ui")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "uvicorn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    told = refusal(2, "ui")
    assert "ui needs uvicorn, which is not installed" in told
    assert "pip install 'primevo[ui]'" in told
