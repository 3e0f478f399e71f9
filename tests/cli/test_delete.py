"""`primevo delete`: a campaign goes with all its rows, and nothing else does."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from search.cli import running
from search.cli.app import app
from search.cli.commands import campaign as verbs
from search.storage.store import Store
from tests.cli.command import data, primevo, refusal
from tests.cli.instant import InstantPool

TABLES = ("campaigns", "candidates", "evaluations")


@pytest.fixture
def two(finished: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the database with `small`, and in it `other`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, "Pool", InstantPool)
    for name in ("primevo.db", "small.yaml"):
        shutil.copy(finished[0] / name, tmp_path)
    primevo("launch", "small.yaml", "--name", "other", "--set", "search.candidates=12")
    return tmp_path


def rows(campaign_id: int) -> list[int]:
    """How many rows each table has of the campaign."""
    connection = sqlite3.connect("primevo.db")
    return [
        connection.execute(
            f"SELECT count(*) FROM {name} WHERE {'id' if name == 'campaigns' else 'campaign_id'}=?",
            (campaign_id,),
        ).fetchone()[0]
        for name in TABLES
    ]


def test_a_campaign_goes_and_the_others_stay(two: Path) -> None:
    before = rows(2)
    told = primevo("delete", "small", "--yes").stderr
    assert "deleted campaign 'small' with 30 candidates and " in told and "weights" not in told
    assert rows(1) == [0, 0, 0] and rows(2) == before and before[1] == 12
    assert [line["name"] for line in data("list")] == ["other"]
    assert "did you mean" not in refusal(3, "delete", "small", "--yes")
    primevo("launch", "small.yaml")  # its name is free again
    assert data("status", "small")["recorded"] == 30


def test_kept_weights_stay_and_are_named(two: Path) -> None:
    kept = two / "primevo-weights" / "small"
    kept.mkdir(parents=True)
    (kept / "2.npz").touch()
    told = primevo("delete", "small", "--yes").stderr
    assert f"kept weights stay in {kept}" in told and (kept / "2.npz").exists()
    told = refusal(2, "launch", "small.yaml")
    assert f"{kept} holds weights of another campaign 'small', which this one would" in told
    assert [line["name"] for line in data("list")] == ["other"]


def test_without_a_terminal_it_needs_yes(two: Path) -> None:
    assert "--yes" in refusal(2, "delete", "small")
    assert rows(1)[0] == 1


@pytest.mark.parametrize(("answer", "left"), [("y", 0), ("n", 1), ("", 1)])
def test_a_person_is_asked(
    two: Path, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    class Terminal:
        @staticmethod
        def isatty() -> bool:
            return True

    asked: list[str] = []

    def confirm(question: str, err: bool) -> bool:
        asked.append(question)
        return answer == "y"

    monkeypatch.setattr(verbs.typer, "confirm", confirm)
    monkeypatch.setattr("search.cli.commands.asking.sys", FakeSys(Terminal()))
    result = CliRunner().invoke(app, ["delete", "small"])
    assert result.exit_code == left and rows(1)[0] == left
    assert asked[0].startswith("delete campaign 'small' with 30 candidates and ")


class FakeSys:
    """`sys` with another stdin: the runner of tests has put its own in the real one's place."""

    def __init__(self, stdin: object) -> None:
        self.stdin = stdin

    def __getattr__(self, name: str) -> object:
        import sys

        return getattr(sys, name)


def test_a_running_campaign_is_refused(two: Path) -> None:
    with (
        Store.open("sqlite:///primevo.db", create=False) as store,
        store.holding(store.campaign("small")),
    ):
        assert "primevo stop small" in refusal(2, "delete", "small", "--yes")
    assert rows(1)[0] == 1


def test_a_failure_removes_nothing(two: Path) -> None:
    """It is one transaction: here the campaign's own row, the last to go, cannot go."""
    before = rows(1)
    with sqlite3.connect("primevo.db") as connection:
        connection.execute(
            "CREATE TRIGGER no BEFORE DELETE ON campaigns BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    refusal(1, "delete", "small", "--yes")
    assert rows(1) == before


def test_a_campaign_whose_plug_in_is_gone(two: Path) -> None:
    with sqlite3.connect("primevo.db") as connection:
        connection.execute(
            "UPDATE campaigns SET config = replace(config, ?, ?)",
            ('"plugins":[]', '"plugins":["gone"]'),
        )
        (config,) = connection.execute("SELECT config FROM campaigns WHERE id = 1").fetchone()
    assert '"gone"' in config
    primevo("delete", "small", "--yes")
    assert rows(1) == [0, 0, 0]
