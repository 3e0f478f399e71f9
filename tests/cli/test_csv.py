"""Every verb that prints a table prints CSV, too: the same records as its JSON."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from search.cli.app import app
from search.cli.output import print_csv
from tests.cli.command import data, primevo

RECORDS = (
    ("list",), ("top", "small"), ("lineage", "small", 30), ("curve", "small", 1), ("seeds",),
    ("mutations", "small", "small"),
    ("primitives",), ("check", "--finalists", "small"),
)  # fmt: skip
RECORD = (
    ("status", "small"), ("check", "--seed-program", "peer"), ("seeds", "switch"),
    ("replay", "small"),
)  # fmt: skip
OWN = {
    "show", "validate", "evaluate", "launch", "resume", "doctor", "compare", "explain", "simplify",
    "replay", "generate", "prune", "study",
}  # fmt: skip
"""Verbs whose CSV is tested below, or, where workers start, with the verb."""


def rows(*arguments: object) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(primevo(*arguments, "-o", "csv").stdout)))


def written(value: Any) -> str:
    """A JSON value as it should stand in a CSV cell."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)


def same(printed: dict[str, str], record: dict[str, Any]) -> bool:
    return printed == {key: written(value) for key, value in record.items()}


def test_no_verb_is_forgotten() -> None:
    """Whatever has an -o with a table or JSON has CSV, and is tested here."""
    tested = {str(verb[0]) for verb in (*RECORDS, *RECORD)} | OWN
    printing = set()
    for command in app.registered_commands:
        told = primevo(command.name, "--help").stdout
        if "--output" in told:
            assert "csv" in told.partition("--output")[2].partition("]")[0], command.name
            printing.add(command.name)
    assert printing == tested


@pytest.mark.parametrize("verb", RECORDS, ids=lambda verb: " ".join(map(str, verb)))
def test_records(campaign: Path, verb: tuple[object, ...]) -> None:
    records, printed = data(*verb), rows(*verb)
    assert records and len(printed) == len(records)
    for row, record in zip(printed, records, strict=True):
        padded = {**dict.fromkeys(row), **record}
        assert same(row, padded), (row, record)


@pytest.mark.parametrize("verb", RECORD, ids=lambda verb: " ".join(map(str, verb)))
def test_one_record(campaign: Path, verb: tuple[object, ...]) -> None:
    (row,) = rows(*verb)
    assert same(row, data(*verb))


def test_show(campaign: Path) -> None:
    (row,) = rows("show", "small", 30)
    record = data("show", "small", 30)
    assert row["hash"] == record["hash"] and row["program"] == record["program"]
    assert float(row["val_loss"]) == record["val_loss"]
    primevo("show", "small", 30, "--diff", "seed", "-o", "csv", code=2)


def test_validate(campaign: Path) -> None:
    printed = {row["key"]: row["value"] for row in rows("validate", "small.yaml")}
    assert printed["search.budget.base"] == "20.0"
    assert json.loads(printed["search.seeds"]) == ["transformer"]


def test_the_end_of_a_campaign(campaign: Path) -> None:
    """`resume` of a finished one prints its table; the verdict goes to stderr."""
    printed = rows("resume", "small")
    assert [row["program"] for row in printed].count("seed program") == 1
    assert "candidate" in primevo("resume", "small", "-o", "csv").stderr.lower()


def test_nothing_is_a_header(capsys: pytest.CaptureFixture[str]) -> None:
    print_csv([], ("id", "val_loss"))
    assert capsys.readouterr().out == "id,val_loss\n"


def test_cells(capsys: pytest.CaptureFixture[str]) -> None:
    """Records may differ in their fields; numbers that JSON lacks are unknown; text is quoted."""
    print_csv([{"a": float("nan"), "b": 'x,"y"\nz'}, {"b": True, "c": {"k": [1]}}], ())
    assert list(csv.reader(io.StringIO(capsys.readouterr().out))) == [
        ["a", "b", "c"],
        ["", 'x,"y"\nz', ""],
        ["", "true", '{"k": [1]}'],
    ]
