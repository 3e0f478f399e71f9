"""`primevo study` as a command. Workers are an instant evaluator."""

from __future__ import annotations

import csv
import io
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from search.cli import running
from tests.cli.command import ROOT, data, primevo, refusal
from tests.cli.instant import InstantPool
from tests.study.test_grid import answer
from workers.spec.pool import PoolSpec
from workers.spec.task import Task

STUDY = """\
task: {model: {layers: 2, sequence_length: 16}}
programs:
  dense: {program: transformer, vary: {d2: [16, 32, 64]}}
  mix: {program: st_moe, vary: {every: [1, 2]}}
grid: {d_model: [32]}
budget: {unit: steps, amounts: [10, 20], points: 2}
seeds: 2
"""


class LawPool(InstantPool):
    """Workers that answer by the law of tests.study.test_grid."""

    def __init__(self, task: Task, spec: PoolSpec, *, plugins: Sequence[str] = ()) -> None:
        super().__init__(task, spec, plugins=plugins)
        self._outcome = answer


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRIMEVO_STORAGE", raising=False)
    monkeypatch.setattr(running, "Pool", LawPool)
    (tmp_path / "mine.yaml").write_text(STUDY)
    return tmp_path


def test_json_csv_table_and_page_say_the_same(folder: Path) -> None:
    found = data("study", "mine.yaml")
    assert {row["program"] for row in found["cells"]} == {"dense", "mix"}
    assert len(found["cells"]) == 5 * 2
    assert {law["program"] for law in found["laws"]} == {"dense", "mix"}
    printed = primevo("study", "mine.yaml", "--wide", "--plot", "plot.html")
    assert all(line in printed.stdout for line in found["findings"])
    assert "bits a byte by FLOPs of training" in printed.stdout
    assert "20 runs" not in printed.stderr and "10 of 10 runs are known" in printed.stderr
    assert "plotly" in (folder / "plot.html").read_text(encoding="utf-8").lower()
    text = primevo("study", "mine.yaml", "-o", "csv").stdout
    read = list(csv.DictReader(io.StringIO(text)))
    assert [row["cell"] for row in read] == [row["cell"] for row in found["cells"]]
    assert float(read[0]["val_bpb"]) == found["cells"][0]["val_bpb"]


def test_the_table_fits_80_columns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = primevo("study", "mine.yaml").stdout.splitlines()
    table = lines[1 : lines.index("")]
    assert table and max(map(len, table)) <= 80


def test_a_plan_trains_nothing(folder: Path) -> None:
    printed = primevo("study", "mine.yaml", "--plan", "-o", "json")
    assert "5 points, 10 runs of 20 steps" in printed.stderr
    assert not (folder / "primevo.db").exists()


def test_a_campaigns_config_is_refused_with_what_is_missing(folder: Path) -> None:
    (folder / "wrong.yaml").write_text("search: {candidates: 3}\n")
    told = refusal(2, "study", "wrong.yaml")
    assert "unknown key 'search'" in told and "programs: missing" in told


def test_killed_it_goes_on_from_what_is_recorded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "Pool", InstantPool)
    environment = {**os.environ, "INSTANT_DELAY_S": "0.2", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cli.instant", "study", "mine.yaml"],
        cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while recorded(folder) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    before = recorded(folder)
    assert 2 <= before < 10
    assert f"{before} of 10 runs are known" in primevo("study", "mine.yaml").stderr


def recorded(folder: Path) -> int:
    try:
        connection = sqlite3.connect(f"file:{folder}/primevo.db?mode=ro", uri=True)
        return int(connection.execute("SELECT count(*) FROM study_runs").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def test_validate_knows_a_study(folder: Path) -> None:
    found = data("validate", "mine.yaml")
    assert (found["budget"]["amounts"], found["name"]) == ([10, 20], "mine")
    (folder / "mine.yaml").write_text(STUDY.replace("amounts", "amount"))
    assert "did you mean 'amounts'?" in refusal(2, "validate", "mine.yaml")
