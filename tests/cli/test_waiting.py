"""Long work shows how far it is on a terminal, says nothing in a pipe, and hushes frameworks."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import ROOT
from workers.data.tokens import load_tokens
from workers.machine.quiet import hushed
from workers.spec.task import DataSpec

WORK = """
import sys, time
from search.cli.waiting import each, waiting
for item in each(range(3), "counting sheep"):
    time.sleep(0.2)
with waiting("sleeping") as tell:
    time.sleep(0.2)
print("done", file=sys.stderr)
"""

STARTING = """
import time
from contextlib import nullcontext
from search.cli import running
from search.config.schema import BudgetSpec, CampaignConfig, SearchSpec
running._check_text = lambda task: None
running.Pool = lambda *_, **__: time.sleep(0.2) or nullcontext()
config = CampaignConfig(search=SearchSpec(candidates=1, budget=BudgetSpec(unit="steps", base=1)))
with running.started(config):
    pass
"""

TINY = """\
task:
  data: {max_documents: 40}
  model: {d_model: 16, layers: 1, sequence_length: 16}
  training: {batch_size: 4, eval_batches: 2}
search: {candidates: 3, budget: {unit: steps, base: 40}}
workers: {count: 1}
"""


def on_terminal(*arguments: str, **how: str) -> str:
    """What the command writes to a terminal that is its stderr."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=theirs, cwd=how.get("cwd"),
        env={**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 65536):
            said += part
    except OSError:  # the other end was closed
        pass
    os.close(ours)
    assert process.wait() == 0, said.decode()
    return said.decode()


def piped(*arguments: str, cwd: Path = ROOT) -> str:
    """What the command writes to a stderr that is none; nobody has set a framework's log level."""
    environment = {key: value for key, value in os.environ.items() if "LOG_LEVEL" not in key}
    run = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stderr


def test_a_terminal_sees_what_is_done() -> None:
    said = on_terminal("-c", WORK)
    assert "counting sheep" in said and "2/3" in said and "sleeping" in said
    assert said.rstrip().endswith("done")
    assert "0/?" not in said


def test_a_terminal_is_told_that_ray_starts() -> None:
    """It takes some seconds, and a minute on a busy machine."""
    assert "starting Ray" in on_terminal("-c", STARTING)


def test_a_pipe_sees_nothing() -> None:
    assert piped("-c", WORK) == "done\n"


def test_tokens_tell_how_many_documents_are_done(tmp_path: Path) -> None:
    told: list[tuple[float, float]] = []
    spec = DataSpec(max_documents=70)
    load_tokens(spec, tmp_path, tell=lambda *each: told.append(each))
    assert told == [(64, 0), (70, 0)]
    load_tokens(spec, tmp_path, tell=lambda *each: told.append(each))
    assert len(told) == 2, "what is in the cache is not made again"


class TestHushed:
    def test_what_is_said_is_dropped(self, capfd: pytest.CaptureFixture[str]) -> None:
        with hushed():
            os.write(2, b"noise\n")
        os.write(2, b"sense\n")
        assert capfd.readouterr().err == "sense\n"

    def test_unless_it_fails(self, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(ImportError), hushed():
            os.write(2, b"why\n")
            raise ImportError
        os.write(2, b"after\n")
        assert capfd.readouterr().err == "why\nafter\n"


@pytest.mark.slow
class TestVerbs:
    """Those that train in their own process, which load TensorFlow."""

    def test_the_oracle_in_a_pipe(self) -> None:
        verb = ("check", "--seed-program", "primer_ez", "--oracle", "--steps", "1")
        said = piped("-m", "search.cli", *verb)
        assert said == "primer_ez type-checks: no output can see the future\n"

    def test_an_export_on_a_terminal_then_its_text_in_a_pipe(self, tmp_path: Path) -> None:
        (tmp_path / "tiny.yaml").write_text(TINY)
        verb = ("export", "--seed-program", "primer_ez", "--config", "tiny.yaml", "--to", "out")
        said = on_terminal("-m", "search.cli", *verb, cwd=str(tmp_path))
        assert "exporting primer_ez" in said and "40/40" in said
        visible = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", said)
        lines = [line.strip() for line in visible.splitlines()]
        rest = {line for line in lines if line and "exporting primer_ez" not in line}
        assert rest == {"training primer_ez for its weights"}
        said = piped("-m", "search.cli", "generate", "./out", "--tokens", "3", cwd=tmp_path)
        assert said == ""
