"""The verdict and the changes since the seed program, in the same words wherever they stand."""

from __future__ import annotations

from html import unescape
from pathlib import Path

import pytest

from primitives.language.text import parse
from tests.cli.command import data, primevo


@pytest.fixture(autouse=True)
def width(campaign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def joined(text: str) -> str:
    """The text without the breaks of its lines."""
    return " ".join(text.split())


def test_the_verdict(finished: tuple[Path, str]) -> None:
    said = data("status", "small")
    verdict = f"{said['verdict']}: {said['finding']}"
    assert said["verdict"] in ("better", "not better", "cannot tell")
    assert verdict in joined(finished[1])
    assert verdict in joined(primevo("status", "small").stdout)
    printed = primevo("top", "small").stdout
    assert verdict in joined(printed)
    assert max(map(len, printed.splitlines())) <= 80
    assert "verdict" not in primevo("top", "small", "-o", "json").stdout
    primevo("report", "small", "--to", "page.html")
    assert said["finding"] in unescape(Path("page.html").read_text(encoding="utf-8"))


def test_changes_since_the_seed_program() -> None:
    best = data("top", "small", "-n", "1")[0]["id"]
    changes = data("show", "small", best)["changes"]
    assert len(changes) > 1 and changes[-1].startswith("receptive field of a block: ")
    printed = primevo("show", "small", best).stdout
    said, _, program = printed.partition("changed since seed program 1:")[2].partition("\n\ndims ")
    assert joined(said) == " ".join(f"- {each}" for each in changes)
    assert max(map(len, said.splitlines())) <= 80
    file = primevo("show", "small", best, "-o", "dna").stdout
    assert all(f"# - {each}\n" in file for each in changes)
    assert parse(file) == parse(f"dims {program}")


def test_a_seed_program_has_not_changed() -> None:
    assert data("show", "small", 1)["changes"] == []
    assert "changed since" not in primevo("show", "small", 1).stdout
