"""A campaign on one machine sends nothing out: it runs in a network namespace whose only way out is
a cable with a listener at its end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(
        os.getuid() != 0 or not (shutil.which("ip") and shutil.which("unshare")),
        reason="network namespaces need root, iproute2 and util-linux",
    ),
]

CONFIG = """\
task:
  data: {max_documents: 40}
  model: {d_model: 16, layers: 1, sequence_length: 16}
  training: {batch_size: 4, eval_batches: 2}
search:
  population: 4
  tournament: 2
  candidates: 3
  budget: {unit: steps, base: 2}
  final: {top: 1, seeds: 1}
workers: {count: 1}
"""

VERBS = (
    "validate c.yaml", "launch c.yaml", "status c", "top c", "show c 1", "report c",
    "export c 1 --to exported", "doctor",
)  # fmt: skip


def test_nothing_is_sent_out(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    inherited = {key: value for key, value in os.environ.items() if key != "PRIMEVO_STORAGE"}
    answer = subprocess.run(
        ["unshare", "--net", sys.executable, "-m", "tests.faults.alone", *VERBS],
        cwd=tmp_path, env={**inherited, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout)
    quiet = [[verb.split()[0], 0, []] for verb in VERBS]
    assert told == [*quiet, ["call", 0, ["203.0.113.1:53"]]], answer.stderr
