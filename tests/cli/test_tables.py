"""Tables for a person: they fit the terminal, and the next program gets them whole."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from primitives.graph.build import Graph, build
from primitives.language.jsonform import to_json
from primitives.language.text import render
from primitives.programs.seeds import load_seed, seed_names, seed_text
from search.cli.output import print_records
from search.config.programfile import first_sentence
from tests.cli.command import ROOT, data, primevo, refusal
from workers.spec.metrics import METRICS

RECORDS: list[dict[str, Any]] = [
    {"id": 7, "hash": "01234567" * 4, "about": "a sentence of thirty-five characters", "n": 1},
    {"id": 1234, "hash": "fedcba98" * 4, "about": "short", "n": 123_456},
]

TABLES = (
    ("status", "small"), ("list",), ("top", "small"), ("top", "small", "--by", "setup_seconds"),
    ("lineage", "small", 30), ("curve", "small", "-o", "table"), ("mutations", "small"),
    ("check", "--finalists", "small"), ("check", "--seed-program", "peer"), ("show", "small", 30),
    ("seeds",), ("primitives",),
)  # fmt: skip


def table(columns: str, capsys: pytest.CaptureFixture[str], **how: Any) -> tuple[list[str], str]:
    """The lines of RECORDS' table in so many columns ("" for no COLUMNS), and what stderr says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", columns)
        print_records(RECORDS, ("id", "hash", "about", "n"), "table", **how)
    printed = capsys.readouterr()
    return printed.out.splitlines(), printed.err


class TestWidth:
    @pytest.mark.parametrize("verb", TABLES, ids=lambda verb: " ".join(map(str, verb)))
    def test_every_table_fits_80_columns(
        self, campaign: Path, monkeypatch: pytest.MonkeyPatch, verb: tuple[object, ...]
    ) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        lines = primevo(*verb).stdout.partition("\n\ndims ")[0].splitlines()
        assert lines and max(map(len, lines)) <= 80
        assert not [line for line in lines if line != line.rstrip()]
        for header, rule in pairwise(lines):
            if set(rule) == {"─"}:  # a wrapped header would have a second line, here the rule is
                assert len(header) <= len(rule) and "…" not in header

    def test_the_default_columns_leave_nothing_out_at_80(
        self, campaign: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        for verb in (("top", "small"), ("list",), ("lineage", "small", 30), ("seeds",)):
            assert "left out" not in primevo(*verb).stderr

    def test_a_flexible_column_goes_on_in_the_next_line(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        lines, told = table("48", capsys, flexible="about")
        assert lines == [
            "  id  hash      about                          n",
            "─" * 48,
            "   7  01234567  a sentence of                  1",
            "                thirty-five characters",
            "1234  fedcba98  short                    123,456",
        ]
        assert not told

    def test_or_it_is_cut(self, capsys: pytest.CaptureFixture[str]) -> None:
        lines, told = table("48", capsys, flexible="about", cut=True)
        assert len(lines) == 4 and "…" in lines[2] and max(map(len, lines)) <= 48 and not told
        assert "short" in lines[3] and "…" not in lines[3]

    def test_columns_without_room_are_left_out_and_named(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        lines, told = table("30", capsys, wide=False)
        assert lines[0].split() == ["id", "hash"] and lines[3].split() == ["1234", "fedcba98"]
        assert told == "left out at 30 columns: about, n; --wide shows all, and so does -o json\n"
        assert table("3", capsys)[0][0].split() == ["id"], "the first column stays"
        assert "--wide" not in table("30", capsys)[1]

    def test_wide_is_whole(self, capsys: pytest.CaptureFixture[str]) -> None:
        lines, told = table("30", capsys, flexible="about", wide=True)
        assert RECORDS[0]["about"] in lines[2] and lines[0].split() == ["id", "hash", "about", "n"]
        assert not told

    @pytest.mark.parametrize("columns", ["", "0", "wide"])
    def test_nothing_is_cut_where_no_width_is_known(
        self, columns: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        lines, _ = table(columns, capsys, flexible="about", cut=True)
        assert RECORDS[0]["about"] in lines[2] and len(lines) == 4
        assert max(map(len, lines)) < 70 and not [line for line in lines if line[-1:] == " "]

    def test_a_terminal_says_its_width(self) -> None:
        """COLUMNS overrules it."""
        assert max(map(len, on_terminal(60))) <= 60
        assert 60 < max(map(len, on_terminal(60, COLUMNS="90"))) <= 90


def on_terminal(columns: int, **environment: str) -> list[str]:
    """The lines that `primevo primitives` prints on a terminal of that width, without colours."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    clean = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    command = [sys.executable, "-m", "search.cli", "primitives"]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**clean, "TERM": "xterm", **environment},
        stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs)
    printed = b""
    try:
        while part := os.read(ours, 65536):
            printed += part
    except OSError:  # the other end was closed
        pass
    os.close(ours)
    assert process.wait() == 0, printed
    return re.sub(r"\x1b\[[0-9;]*m", "", printed.decode()).splitlines()


class TestColumns:
    def test_a_hash_is_short_in_tables_and_whole_in_json(self, campaign: Path) -> None:
        best = data("top", "small", "-n", 1)[0]
        assert len(best["hash"]) == 32
        for verb in (
            ("top", "small"),
            ("top", "small", "--wide"),
            ("lineage", "small", best["id"]),
        ):
            printed = primevo(*verb).stdout
            assert best["hash"][:8] in printed and best["hash"][:9] not in printed
        assert best["hash"] in primevo("show", "small", best["id"]).stdout

    def test_top_shows_the_listed_metrics_and_wide_all(self, campaign: Path) -> None:
        header = primevo("top", "small").stdout.splitlines()[0].split()
        metrics = {name: row for name, row in METRICS.items() if row.where != "test"}
        listed = [name for name, row in metrics.items() if row.listed]
        assert header == ["id", "mutation", "fitness", *listed, "hash"]
        wide = primevo("top", "small", "--wide").stdout.splitlines()[0].split()
        assert wide == ["id", "parent_id", "mutation", "fitness", *metrics, "hash"]
        ranked = primevo("top", "small", "--by", "step_time_s").stdout.splitlines()[0].split()
        assert ranked == ["id", "mutation", "fitness", "step_time_s", *listed, "hash"]

    def test_refusals_are_sorted(self, campaign: Path) -> None:
        rejected = data("status", "small")["rejected"]
        printed = primevo("status", "small").stdout
        part = printed.partition("Refused before training\n")[2].partition("\n\n")[0]
        rows = [re.split(r"\s{2,}", line.strip()) for line in part.splitlines()[2:]]
        assert {reason: int(count.replace(",", "")) for reason, count in rows} == rejected
        counts = [rejected[reason] for reason, _ in rows]
        assert len(counts) > 2 and counts == sorted(counts, reverse=True)


class TestSeeds:
    def test_one_line_each(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for columns in ("80", ""):
            monkeypatch.setenv("COLUMNS", columns)
            lines = primevo("seeds").stdout.splitlines()[2:]
            assert [line.split()[0] for line in lines] == list(seed_names())
        switch = next(line for line in lines if line.startswith("switch "))
        assert switch.endswith("softmax(x W), 8 experts.") and "579,200" in switch

    def test_one_in_full(self) -> None:
        assert primevo("seeds", "primer").stdout == seed_text("primer")
        found = data("seeds", "primer")
        (row,) = [row for row in data("seeds") if row["name"] == "primer"]
        assert found == {**row, "text": seed_text("primer")}
        assert "did you mean 'primer'?" in refusal(3, "seeds", "prime")

    def test_a_first_sentence(self) -> None:
        assert first_sentence("A (So et al. 2021): b. Differs: c.") == "A (So et al. 2021): b."
        assert first_sentence("x . w > 1.5, all of it") == "x . w > 1.5, all of it"
        assert first_sentence("") == ""


class TestCards:
    def test_check_takes_a_card(self, empty: Path) -> None:
        """A card holds the program twice, as `dna` and as `text`; either will do."""
        dna = load_seed("primer_ez", 32)
        graph = build(dna)
        assert isinstance(graph, Graph)
        both = {"dna": to_json(dna), "text": render(dna)}
        for part in (both, {"text": both["text"]}, {"dna": both["dna"]}):
            (empty / "card.json").write_text(json.dumps({"hash": "old", "task": {}, **part}))
            found = data("check", "card.json", "--config", "small.yaml")
            assert found["hash"] == graph.hash

    @pytest.mark.parametrize("card", [{"task": {}}, {"dna": 3}, {"text": 3}, {"text": "main"}])
    def test_a_card_without_a_program(self, empty: Path, card: dict[str, object]) -> None:
        (empty / "card.json").write_text(json.dumps(card))
        assert "card.json" in refusal(2, "check", "card.json")


class TestShell:
    def test_version(self) -> None:
        assert re.fullmatch(r"primevo \d+\.\d+\.\d+\S*\n", primevo("--version").stdout)

    def complete(self, words: str) -> list[str]:
        environment = {
            **os.environ, "_PRIMEVO_COMPLETE": "complete_bash", "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        }  # fmt: skip
        command = [sys.executable, "-X", "importtime", "-m", "search.cli"]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
        imported = {
            line.rpartition("|")[2].strip().partition(".")[0] for line in result.stderr.splitlines()
        }
        heavy = {"tensorflow", "keras", "ray", "numpy", "sqlalchemy", "rich"}
        assert "typer" in imported and not imported & heavy
        return result.stdout.split()

    def test_completion(self) -> None:
        assert self.complete("primevo sta") == ["status"]
        assert self.complete("primevo top --wi") == ["--wide"]
        assert self.complete("primevo seeds --output j") == ["json"]

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_the_script_is_for_primevo(self, shell: str) -> None:
        """Typer asks which shell runs it; the variable makes it take a name instead."""
        command = [sys.executable, "-m", "search.cli", "--show-completion", shell]
        environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
        result = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, env=environment, check=True
        )
        assert f"_PRIMEVO_COMPLETE=complete_{shell}" in result.stdout
        assert "python" not in result.stdout
