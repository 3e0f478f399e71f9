"""A campaign in a process of its own: Ctrl-C once and twice, stop, and the terminal's display."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from search.cli import running
from tests.cli.command import CONFIG, ROOT, data, primevo, refusal
from tests.cli.instant import InstantPool


class TestInterruption:
    def start(self, folder: Path, delay_s: float) -> subprocess.Popen[str]:
        """A campaign under way in a process of its own."""
        (folder / "slow.yaml").write_text(CONFIG)
        environment = {**os.environ, "INSTANT_DELAY_S": str(delay_s), "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cli.instant", "launch", "slow.yaml"],
            cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        assert "slow seeds" in process.stderr.readline()
        return process

    def test_ctrl_c_drains_and_names_resume(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        process = self.start(tmp_path, delay_s=0.2)
        time.sleep(0.7)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
        assert process.returncode == 130
        assert stdout == ""
        assert "draining" in stderr
        assert "primevo resume slow" in stderr
        assert "Traceback" not in stderr

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(running, "Pool", InstantPool)
        before = data("status", "slow")
        assert before["state"] == "interrupted"
        assert before["pending"] == 0
        assert 1 <= before["recorded"] < 30
        kept = data("top", "slow", "-n", "30")
        after = data("resume", "slow")
        assert (after["state"], after["recorded"]) == ("finished", 30)
        assert all(record in data("top", "slow", "-n", "30") for record in kept)

    def test_a_second_ctrl_c_stops_at_once(self, tmp_path: Path) -> None:
        """Signals that come while a busy machine lets the process stand still are one to it, so
        there is time between the two."""
        process = self.start(tmp_path, delay_s=60.0)
        process.send_signal(signal.SIGINT)
        time.sleep(2)
        start = time.perf_counter()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
        assert time.perf_counter() - start < 10
        assert process.returncode == 130
        assert "primevo resume slow" in stderr
        assert "Traceback" not in stderr

    def test_a_search_ends_when_told_to(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The one by its hours; the other was drained, and has as many candidates as it will."""
        (tmp_path / "short.yaml").write_text(CONFIG)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(running, "Pool", InstantPool)
        primevo("launch", "short.yaml", "--hours", 0)
        ended = data("status", "short")
        assert (ended["state"], ended["recorded"], ended["candidates"]) == ("finished", 1, 1)

        process = self.start(tmp_path, delay_s=0.2)
        time.sleep(0.7)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        recorded = data("status", "slow")["recorded"]
        primevo("resume", "slow", "--candidates", recorded)
        assert data("status", "slow")["state"] == "finished"
        assert "has begun its final phase" in refusal(2, "resume", "slow", "--candidates", 50)

    def test_stop_drains_from_another_process(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        process = self.start(tmp_path, delay_s=0.3)
        monkeypatch.chdir(tmp_path)
        assert data("status")["state"] == "running"
        assert "primevo resume slow" in primevo("stop", "slow").stderr
        process.communicate(timeout=30)
        assert process.returncode == 130
        assert data("status", "slow")["state"] == "interrupted"
        assert "not running" in primevo("stop", "slow").stderr

    def test_a_campaign_runs_once_at_a_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        process = self.start(tmp_path, delay_s=0.3)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(running, "Pool", InstantPool)
        assert "primevo stop slow" in refusal(1, "resume", "slow")
        process.kill()
        process.communicate(timeout=30)

    def test_resuming_a_finished_campaign_prints_its_end(self, campaign: Path) -> None:
        result = primevo("resume", "small")
        assert "is finished" in result.stderr
        assert ": primevo export small" in result.stdout


def test_on_a_terminal_progress_is_drawn_in_place(tmp_path: Path) -> None:
    (tmp_path / "slow.yaml").write_text(CONFIG)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TERM": "xterm",
        "INSTANT_DELAY_S": "0.03",
    }
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cli.instant", "launch", "slow.yaml"],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    drawn = b""
    with suppress(OSError):  # what Linux answers once the other side is closed
        while part := os.read(ours, 4096):
            drawn += part
    os.close(ours)
    stdout, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert b"\x1b[" in drawn
    assert b"ETA" in drawn
    assert b"under it" in drawn
    assert b"\x1b[" not in stdout
    assert b"primevo export" in stdout
