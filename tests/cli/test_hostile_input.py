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


@pytest.mark.parametrize("value", ["a" * 5000, "a\\0b.dna", "\\ud800.dna"])
def test_seed_programs_that_are_no_paths(empty: Path, value: str) -> None:
    seeds = f'search.seeds=["{value}"]'
    assert "cannot be a path" in refusal(2, "validate", "small.yaml", "--set", seeds)


def test_folders_and_databases_whose_names_are_too_long(empty: Path) -> None:
    long = "a" * 5000
    export = ("export", "--seed-program", "primer", "--config", "small.yaml", "--to", long)
    assert "cannot be a folder" in refusal(2, *export)
    assert "cannot be a file" in refusal(2, "list", "--storage", f"sqlite:///{long}")


def test_keys_that_are_too_deep(empty: Path) -> None:
    assert "nested deeper" in refusal(
        2, "validate", "small.yaml", "--set", ".".join("a" * 999) + "=1"
    )


@pytest.mark.parametrize("key", ["layers", "d_model", "sequence_length"])
def test_sizes_that_no_machine_holds(empty: Path, key: str) -> None:
    told = refusal(2, "validate", "small.yaml", "--set", f"task.model.{key}={8 * 10**15}")
    assert f"task.model.{key}" in told and "less than or equal to" in told


@pytest.mark.parametrize("name", ["", " ", "a\n", "null x", "&a x", "# x"])
def test_names_of_campaigns(empty: Path, name: str) -> None:
    assert "letter or digit" in refusal(2, "launch", "small.yaml", "--name", name)
