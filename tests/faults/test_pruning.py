"""A pruning that is killed in each of its phases, and goes on by the command that began it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.faults.ledger import ROOT

pytestmark = pytest.mark.faults

TINY = """\
task:
  data: {max_documents: 40}
  model: {d_model: 16, layers: 1, sequence_length: 16}
  training: {batch_size: 4, eval_batches: 2}
search: {candidates: 3, budget: {unit: steps, base: 40}}
workers: {count: 1}
"""
PHASES = (
    "training the whole model", "gates", "pruned", "by magnitude", "least used experts",
    "distilled from scratch", "from scratch", "scores",
)  # fmt: skip
ASKED = ("--sparsity", "0.4", "--steps", "64")


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    (folder / "tiny.yaml").write_text(TINY)
    verb = ("prune", "--seed-program", "switch", "--config", "tiny.yaml", *ASKED, "--to", "small")
    inherited = {key: value for key, value in os.environ.items() if key != "PRIMEVO_STORAGE"}
    return subprocess.Popen(
        [sys.executable, "-m", "search.cli", *verb, *more, "-o", "json"], cwd=folder, text=True,
        env={**inherited, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def killed_in(folder: Path, phase: str) -> list[str]:
    """What a process has said of its progress before it was killed in this phase."""
    process, said = start(folder), list[str]()
    assert process.stderr is not None
    for line in process.stderr:
        said.append(line)
        if line.startswith(f"switch {phase} "):
            process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "".join(said)
    return said


def rows(folder: Path) -> list[tuple[int, float | None, str | None]]:
    with closing(sqlite3.connect(folder / "primevo.db")) as connection:
        return connection.execute("SELECT id, finished_at, result FROM prunings").fetchall()


def weights(folder: Path) -> dict[str, np.ndarray]:
    """Those of the pruned model, in order."""
    (file,) = (folder / "primevo-weights" / ".prunings").glob("*/pruned.npz")
    with np.load(file) as found:
        return {name: value for name, value in found.items() if name != "about"}


@pytest.mark.timeout(3600)  # ten processes, which load TensorFlow
def test_it_goes_on_from_every_phase(tmp_path: Path) -> None:
    often, once = tmp_path / "often", tmp_path / "once"
    for folder in (often, once):
        folder.mkdir()
    for number, phase in enumerate(PHASES):
        said = "".join(killed_in(often, phase))
        for before in PHASES[: max(number - 1, 0)]:
            assert f"switch {before} " not in said, "what had ended was done again"
        assert len(rows(often)) == 1 and rows(often)[0][1:] == (None, None)
        assert not (often / "small").exists()
    tables = {often: ["whole", *PHASES[2:-1]], once: ["whole", "pruned"]}
    for folder, models in tables.items():
        process = start(folder, *(["--no-baselines"] if folder == once else []))
        out, err = process.communicate()
        assert process.returncode == 0, err
        assert [row["model"] for row in json.loads(out)] == models
        ((_, finished, result),) = rows(folder)
        assert finished is not None and json.loads(result or "")["share_gone"] >= 0.4
    ours, theirs = weights(often), weights(once)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name])
