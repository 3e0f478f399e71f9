"""`primevo prunings`, and what other verbs show of prunings."""

from __future__ import annotations

import csv
import io
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from search.config.schema import CampaignConfig
from search.storage.store import Store
from search.study import prunings
from search.study.prunings import Asked, Question
from tests.cli.command import data, primevo, refusal
from workers.pruning.checkpoint import Checkpoint
from workers.pruning.failure import PruningError
from workers.pruning.table import from_json

TABLE = [
    {"model": "whole", "layers": 2, "parameters": 900, "val_bpb": 3.0, "test_bpb": 3.1,
     "speedup_batch_1": 1.0, "speedup_batch_32": 1.0, "tokens_per_s_batch_32": 40.0, "steps": 40},
    {"model": "pruned", "layers": 1, "parameters": 400, "val_bpb": 3.2, "test_bpb": 3.25,
     "speedup_batch_1": 1.5, "speedup_batch_32": 1.75, "tokens_per_s_batch_32": 70.0, "steps": 40},
]  # fmt: skip


@pytest.fixture
def recorded(empty: Path) -> Path:
    """A campaign whose candidate 2 was pruned and is being pruned again, and a seed program."""
    from search.config.file import load
    from tests.search.instant import InstantEvaluator, launch

    with Store.open("sqlite:///primevo.db") as store:
        launch(store, "small", candidates=5)
        from search.campaign.controller import Controller

        Controller(store, store.campaign("small"), InstantEvaluator()).run()
        config = load(Path("small.yaml"), ["weights=kept"])
        for sparsity in (0.5, 0.75):
            number = prunings.begun(store, question(config, "small", 2, sparsity))
            prunings.note(store, number, {"phase": "gates", "done": 20, "total": 80})
        prunings.finish(store, 1, {"share_gone": 0.512, "table": TABLE})
        prunings.begun(store, question(config, None, None, 0.5))
    return empty


def question(
    config: CampaignConfig, campaign: str | None, candidate: int | None, share: float
) -> Question:
    from primitives.programs.seeds import load_seed

    asked = Asked("parameters", share, None, True)
    program = f"{campaign}-{candidate}" if campaign else "transformer"
    return Question(
        program, load_seed("transformer"), config, campaign, candidate, 7, "steps 40", asked
    )


def test_they_are_listed(recorded: Path) -> None:
    rows = data("prunings", "list")
    assert [(row["program"], row["state"], row["steps"]) for row in rows] == [
        ("small-2", "done", 20), ("small-2", "interrupted", 20),
        ("transformer", "interrupted", None),
    ]  # fmt: skip
    assert rows[0]["test_bpb"] == 3.25 and rows[0]["whole_bpb"] == 3.1
    printed = primevo("prunings", "list").stdout
    assert "51.2" in printed.replace("0.5120", "51.2") and "75.0% of the blocks' param" in printed
    text = primevo("prunings", "list", "-o", "csv").stdout
    assert [row["id"] for row in csv.DictReader(io.StringIO(text))] == ["1", "2", "3"]


def test_a_question_has_one_row(recorded: Path) -> None:
    from search.config.file import load

    config = load(Path("small.yaml"), ["weights=kept"])
    with Store.open("sqlite:///primevo.db") as store:
        assert prunings.begun(store, question(config, "small", 2, 0.75)) == 2
        assert prunings.begun(store, question(config, None, None, 0.5)) == 3
        assert prunings.begun(store, question(config, None, None, 0.25)) == 4


def test_one_that_a_process_holds_is_running(recorded: Path) -> None:
    with Store.open("sqlite:///primevo.db") as store:
        folder = prunings.pruning(store, 2).folder
    assert folder.is_relative_to(recorded / "kept")
    with Checkpoint(folder).holding():
        assert [row["state"] for row in data("prunings", "list")] == [
            "done", "running", "interrupted"
        ]  # fmt: skip


def test_one_is_shown_with_its_models(recorded: Path) -> None:
    shown = data("prunings", "show", 1)
    assert shown["result"]["table"] == TABLE
    printed = primevo("prunings", "show", 1).stdout
    assert "whole" in printed and "1.75" in printed
    assert "gates" in primevo("prunings", "show", 2).stdout
    assert "no pruning 9; there are: 1, 2, 3" in refusal(3, "prunings", "show", 9)


def test_a_candidate_shows_its_prunings(recorded: Path) -> None:
    assert [each["id"] for each in data("show", "small", 2)["prunings"]] == [1, 2]
    assert data("show", "small", 1)["prunings"] == []
    printed = primevo("show", "small", 2).stdout
    assert "pruning 2" in printed and "interrupted" in printed


def test_deleting_takes_the_files_along(recorded: Path) -> None:
    with Store.open("sqlite:///primevo.db") as store:
        folder = prunings.pruning(store, 2).folder
    Checkpoint(folder).finish("gates", [])
    assert list(folder.iterdir())
    assert "say it with --yes" in refusal(2, "prunings", "delete", 2)
    primevo("prunings", "delete", 2, "--yes")
    assert not folder.exists() and folder.parent.is_dir()
    assert [row["id"] for row in data("prunings", "list")] == [1, 3]


@pytest.mark.parametrize(
    "word", ["kept", "kept/.prunings", "kept/.prunings/..", "kept/.prunings/other",
             "kept/.prunings/{name}/../../.prunings/{name}/.."],
)  # fmt: skip
def test_a_row_cannot_name_what_is_deleted(recorded: Path, word: str) -> None:
    """Databases are data: a folder that is not the pruning's own stays, whatever its row says."""
    with Store.open("sqlite:///primevo.db") as store:
        folder = prunings.pruning(store, 2).folder
    Checkpoint(folder).finish("gates", [])
    (recorded / "kept/.prunings/other").mkdir()
    said = str(recorded / word.format(name=folder.name))
    with closing(sqlite3.connect("primevo.db", isolation_level=None)) as connection:
        connection.execute("UPDATE prunings SET folder = ? WHERE id = 2", (said,))
    primevo("prunings", "delete", 2, "--yes")
    assert list(folder.iterdir()) and (recorded / "kept/.prunings/other").is_dir()


@pytest.mark.parametrize(
    "damage",
    ["measure = 'weight'", "share = 'half'", "result = '{\"table\": 3}'", "result = '[1]'",
     "result = 'x'", "progress = '[1]'", "folder = x'00'", "folder = char(0)"],
)  # fmt: skip
def test_a_damaged_row_is_one_message(recorded: Path, damage: str) -> None:
    with closing(sqlite3.connect("primevo.db", isolation_level=None)) as connection:
        connection.execute(f"UPDATE prunings SET {damage} WHERE id = 1")
    for verb in (("list",), ("show", "1")):
        assert "primevo.db: its content is damaged" in refusal(1, "prunings", *verb)


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"\x93NUMPY", b"text"])
def test_a_damaged_file_is_one_message(tmp_path: Path, content: bytes) -> None:
    Checkpoint(tmp_path).finish("gates", [np.ones(3)])
    assert [part.sum() for part in Checkpoint(tmp_path).part("gates") or ()] == [3]
    (tmp_path / "gates.npz").write_bytes(content)
    with pytest.raises(PruningError, match=r"gates.npz is damaged .*: delete it"):
        Checkpoint(tmp_path).part("gates")
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(PruningError, match=r"result.json is damaged .*: delete it"):
        Checkpoint(tmp_path).said(from_json)


def test_a_campaign_takes_its_prunings_along(recorded: Path) -> None:
    primevo("delete", "small", "--yes")
    assert [row["program"] for row in data("prunings", "list")] == ["transformer"]
