"""`evaluate --memory`, and a campaign under an objective with memories, from its config to an
exported model that uses its memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import ROOT, data, primevo, refusal

CONFIG = """\
task:
  data: {max_documents: 6}
  model: {d_model: 16, layers: 1, sequence_length: 16}
  training: {batch_size: 8, eval_batches: 2, objective: trime}
search:
  population: 4
  tournament: 2
  candidates: 8
  budget: {unit: steps, base: 30}
  final: {top: 1, seeds: 2}
workers: {count: 1, cpus_per_worker: 1}
"""


def test_an_unknown_memory_is_named_before_anything_runs(empty: Path) -> None:
    said = refusal(
        2, "evaluate", "--seed-program", "transformer", "--config", "small.yaml", "--memory", "lng"
    )
    assert "--memory: unknown memory 'lng'; did you mean 'long'" in said


@pytest.mark.slow
def test_a_campaign_under_trime_ends_in_a_model_with_a_memory(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRIMEVO_STORAGE", raising=False)
    Path("remembering.yaml").write_text(CONFIG)
    primevo("launch", "remembering.yaml")
    best = data("top", "remembering", "-n", 1)[0]
    primevo("export", "remembering", best["id"], "--to", "winner")
    done = subprocess.run(
        [sys.executable, "example.py"], cwd="winner", capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "without memories" in done.stdout and "positions so far" in done.stdout
    assert str(ROOT) not in Path("winner/example.py").read_text()

    options = ["--seeds", 1, "--memory", "local,cache", "--memory-entries", 2000]
    [run] = data("evaluate", "remembering", best["id"], *options)["runs"]
    assert [one["memory"] for one in run["memories"]] == ["none", "local", "cache"]
    none, local, cache = (one["val_loss"] for one in run["memories"])
    assert cache <= none and local != none
