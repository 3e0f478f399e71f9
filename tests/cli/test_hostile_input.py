"""Input that nobody means well: one message, never a traceback, never a wait."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.command import refusal

BANKS = "dims d0=8\nconstants c0=0.5\n"


@pytest.mark.parametrize("length", [900, 3000])
def test_a_long_chain_of_calls(empty: Path, length: int) -> None:
    names = ["main", *(f"s{i}" for i in range(1, length))]
    bodies = [f"{callee}(x)" for callee in names[1:]] + ["ABS(x)"]
    subroutines = (
        f"{name}(x, y):\n  a = {body}\n" for name, body in zip(names, bodies, strict=True)
    )
    (empty / "chain.dna").write_text(BANKS + "".join(subroutines))
    assert "call fewer subroutines" in refusal(2, "check", "chain.dna")


@pytest.mark.parametrize("name", ["pipe", "a\0b", "a" * 5000, "\ud800", "~nosuchuser/x", "."])
def test_paths_that_cannot_be_read(empty: Path, name: str) -> None:
    os.mkfifo(empty / "pipe")
    for verb in (("check",), ("validate",), ("check", "--seed-program", "primer", "--config")):
        message = refusal(2, *verb, name)
        assert "cannot read the" in message or "Invalid value" in message
        assert len(message) < 600


@pytest.mark.parametrize("name", ["pipe", "folder", "~nosuchuser/x"])
def test_text_that_is_no_file(empty: Path, name: str) -> None:
    os.mkfifo(empty / "pipe")
    (empty / "folder").mkdir()
    text = ("--set", "task.data.source=text", "--set", f"task.data.files=[{name}]")
    assert "no file matches" in refusal(2, "validate", "small.yaml", *text)
