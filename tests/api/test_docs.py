"""The snippets of docs/python.md and docs/comparing.md run as they stand, on instant workers."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from search.cli import running
from tests.cli.command import CONFIG, ROOT, data, primevo
from tests.cli.instant import InstantPool


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRIMEVO_STORAGE", raising=False)
    monkeypatch.setattr(running, "Pool", InstantPool)
    (tmp_path / "small.yaml").write_text(CONFIG)
    return tmp_path


def snippets(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert found
    return found


def test_python_md(here: Path) -> None:
    scope: dict[str, object] = {}
    for snippet in snippets("python.md", "python"):
        exec(compile(snippet, "docs/python.md", "exec"), scope)
    assert (here / "first.html").exists()
    storage = ("--storage", f"sqlite:///{here}/mine.db")
    assert data("status", "first", *storage)["state"] == "finished"
    assert data("status", "asked", *storage)["state"] == "finished"


def test_comparing_md(here: Path) -> None:
    primevo("launch", "small.yaml")
    for snippet in snippets("comparing.md", "sh"):
        for line in snippet.splitlines():
            command, *arguments = shlex.split(line)
            assert command == "primevo"
            primevo(*arguments)
    assert (here / "plot.html").exists() and (here / "short.dna").exists()
    for snippet in snippets("comparing.md", "python"):
        exec(compile(snippet, "docs/comparing.md", "exec"), {})
