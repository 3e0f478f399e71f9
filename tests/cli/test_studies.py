"""compare, explain and simplify as commands. Workers are an instant evaluator."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from primitives.language.text import parse
from search.cli import running
from search.storage.store import Store
from tests.cli.command import CONFIG, ROOT, data, primevo, refusal
from tests.cli.instant import InstantPool
from tests.study.known import NEUTRAL, SEED, SINE, SQUARED, answer, campaign_of, graph_of
from workers.spec.pool import PoolSpec
from workers.spec.task import Task


class KnownPool(InstantPool):
    """Workers that answer by the rule of tests.study.known."""

    def __init__(self, task: Task, spec: PoolSpec, *, plugins: tuple[str, ...] = ()) -> None:
        super().__init__(task, spec, plugins=plugins)
        self._outcome = answer


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a config and the campaign `known` of four candidates."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRIMEVO_STORAGE", raising=False)
    monkeypatch.setattr(running, "Pool", KnownPool)
    (tmp_path / "small.yaml").write_text(CONFIG)
    (tmp_path / "mine.dna").write_text(SQUARED)
    with Store.open("sqlite:///primevo.db") as store:
        campaign_of(store, (SEED, SQUARED, NEUTRAL, SINE))
    return tmp_path


class TestCompare:
    def test_candidates_seed_programs_and_files(self, folder: Path) -> None:
        rows = data("compare", "known", 1, "known/2", "transformer", "mine.dna")
        assert [row["program"] for row in rows] == [
            "known/1", "known/2", "transformer", "mine.dna"
        ]  # fmt: skip
        assert rows[1]["hash"] == rows[3]["hash"] and rows[1]["mean"] == rows[3]["mean"]
        assert rows[1]["verdict"] == "better" and rows[1]["speedup_flops"] > 1
        assert rows[0]["difference"] is None

    def test_an_exported_card_and_its_folder(self, folder: Path) -> None:
        (folder / "left").mkdir()
        (folder / "left" / "card.json").write_text(json.dumps({"text": SQUARED}))
        rows = data("compare", "known/1", "left", "left/card.json")
        assert rows[1]["hash"] == rows[2]["hash"] == data("show", "known", 2)["hash"]

    def test_table_and_csv_say_what_json_says(self, folder: Path) -> None:
        rows = data("compare", "known/1", "known/2")
        table = primevo("compare", "known/1", "known/2", "--wide").stdout
        assert f"{rows[1]['difference']:+.4f}" in table and "better" in table
        text = primevo("compare", "known/1", "known/2", "-o", "csv").stdout
        read = list(csv.DictReader(io.StringIO(text)))
        assert [row["program"] for row in read] == ["known/1", "known/2"]
        assert float(read[1]["difference"]) == rows[1]["difference"]

    def test_it_fits_80_columns(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        for verb in (("compare", "known/1", "known/2"), ("explain", "known", 4)):
            printed = primevo(*verb).stdout
            assert max(map(len, printed.splitlines())) <= 80
            assert " ± 0.00" in printed
            assert "gone from the winner" in printed or "x seconds" in printed

    def test_known_runs_start_no_workers(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = data("compare", "known/1", "known/2", "--seeds", 2)
        monkeypatch.setattr(running, "Pool", None)
        told = primevo("compare", "known/1", "known/2", "--seeds", 2, "-o", "json")
        assert json.loads(told.stdout) == before
        assert "compare: 4 of 4 runs are known" in told.stderr

    def test_another_scale_needs_other_runs(self, folder: Path) -> None:
        base = ("compare", "transformer", "primer_ez", "--config", "small.yaml", "--seeds", 1)
        small = data(*base)
        large = data(*base, "--scale", "d_model=64,layers=3")
        assert [row["program"] for row in small] == [row["program"] for row in large]
        tasks = sqlite3.connect("primevo.db").execute("SELECT DISTINCT task FROM study_runs")
        sizes = [json.loads(task)["model"] for (task,) in tasks]
        assert [(each["d_model"], each["layers"]) for each in sizes] == [(32, 1), (64, 3)]

    def test_the_plot_works_offline(self, folder: Path) -> None:
        primevo("compare", "known/1", "known/2", "--plot", "plot.html")
        page = (folder / "plot.html").read_text()
        assert r"known\u002f2" in page and 'src="http' not in page and len(page) > 1_000_000

    @pytest.mark.parametrize(
        ("arguments", "code", "part"),
        [
            (("known/1",), 2, "name two programs or more"),
            (("known/9", "known/1"), 3, "no candidate 9; it has 1 to 4"),
            (("nobody/1", "known/1"), 3, "no campaign 'nobody'"),
            (("transformer", "primer"), 2, "need --config CONFIG"),
            (("known/1", "transfomer"), 2, "unknown seed program 'transfomer'"),
            (("7", "known/1"), 2, "7 is a candidate's number"),
            (("known/1", "known/2", "--scale", "depth=3"), 2, "no size 'depth'"),
            (("known/1", "known/2", "--scale", "layers"), 2, "write KEY=N"),
            (("known/1", "known/2", "--scale", "d_model=30"), 2, "task.model.d_model"),
            (("known/1", "known/2", "--set", "seed=3"), 2, "--set goes with --config"),
        ],
    )
    def test_what_is_wrong_is_told(
        self, folder: Path, arguments: tuple[str, ...], code: int, part: str
    ) -> None:
        assert part in refusal(code, "compare", *arguments)

    def test_a_wrong_name_leaves_no_database(self, folder: Path) -> None:
        for verb in (("transformer", "primr"), ("transformer", "known/1")):
            told = ("--config", "small.yaml", "--storage", "sqlite:///other.db")
            primevo("compare", *verb, *told, code=2 if "primr" in verb else 3)
        assert not (folder / "other.db").exists()


class TestExplain:
    def test_the_table_names_what_carries_the_gain(self, folder: Path) -> None:
        rows = data("explain", "known", 4)
        assert [(row["id"], row["inserted"], row["removed"]) for row in rows] == [
            (2, "helps", "helps"),
            (3, "no clear effect", "no clear effect"),
            (4, "hurts", "hurts"),
            (None, "helps", None),
        ]
        table = primevo("explain", "known", 4, "--wide").stdout
        assert "helps +0.43" in table and "new SQUARE of act" in table

    def test_a_seed_program_is_refused(self, folder: Path) -> None:
        assert "is a seed program" in refusal(2, "explain", "known", 1)


class TestSimplify:
    def test_it_writes_a_shorter_program(self, folder: Path) -> None:
        found = data("simplify", "known", 4, "--to", "short.dna")
        text = (folder / "short.dna").read_text()
        assert text == found["program"] + "\n"
        assert found["instructions"] < found["instructions_before"]
        ops = graph_of(parse(text)).ops
        assert "SQUARE" in ops and "TANH" not in ops
        assert data("check", "short.dna")["instructions"] == found["instructions"]
        printed = primevo("simplify", "known", 4).stdout
        assert found["finding"] in printed and "gone" in printed and text in printed

    def test_one_seed_is_refused(self, folder: Path) -> None:
        assert "two seeds or more" in refusal(2, "simplify", "known", 4, "--seeds", 1)


class TestInterruption:
    def start(self, folder: Path) -> subprocess.Popen[str]:
        environment = {**os.environ, "INSTANT_DELAY_S": "0.2", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tests.cli.instant", "explain", "known", "4"]
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def recorded(self) -> int:
        connection = sqlite3.connect("primevo.db")
        return int(connection.execute("SELECT count(*) FROM study_runs").fetchone()[0])

    @pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
    def test_it_goes_on_from_what_is_recorded(
        self, folder: Path, sign: signal.Signals, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(running, "Pool", InstantPool)
        process = self.start(folder)
        deadline = time.monotonic() + 60
        while self.recorded() < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(sign)
        _, stderr = process.communicate(timeout=30)
        before = self.recorded()
        assert before >= 2
        if sign == signal.SIGINT:
            assert process.returncode == 130
            assert "the same command goes on from there" in stderr
            assert "Traceback" not in stderr
        told = primevo("explain", "known", 4, "-o", "json").stderr
        assert f"{before} of " in told and "runs are known" in told
        rows = sqlite3.connect("primevo.db").execute("SELECT DISTINCT study FROM study_runs")
        assert rows.fetchall() == [("explain known 4",)]


class TestKeptRuns:
    """`primevo studies`."""

    def test_what_was_trained_is_listed(self, folder: Path) -> None:
        primevo("compare", "known/1", "known/2", "--seeds", 2)
        primevo("explain", "known", 4, "--seeds", 2)
        listed = data("studies", "list")
        assert [row["study"] for row in listed] == ["compare", "explain known 4"]
        assert (listed[0]["programs"], listed[0]["runs"]) == (2, 4)
        assert listed[1]["runs"] == 2 * listed[1]["programs"] > 2
        assert "explain known 4" in primevo("studies", "list").stdout
        assert re.fullmatch(r"20[-0-9]+ [:0-9]+\+00:00", listed[0]["last_at"])
        runs = data("studies", "runs", "compare")
        assert len(runs) == 4 and {run["outcome"] for run in runs} == {"completed"}
        assert runs[0]["task"]["model"]["d_model"] > 0 and runs[0]["val_loss"] > 0
        assert len(csv_rows(primevo("studies", "runs", "compare", "-o", "csv").stdout)) == 4

    def test_what_is_deleted_is_trained_again(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = data("compare", "known/1", "known/2", "--seeds", 2)
        primevo("explain", "known", 4, "--seeds", 2)
        told = primevo("studies", "delete", "compare", "--yes").stderr
        assert told == "deleted 4 runs of 2 programs of study 'compare'\n"
        assert [row["study"] for row in data("studies", "list")] == ["explain known 4"]
        assert data("compare", "known/1", "known/2", "--seeds", 2) == first
        assert data("studies", "list")[-1]["runs"] == 4

    def test_it_asks_first(self, folder: Path) -> None:
        primevo("compare", "known/1", "known/2", "--seeds", 2)
        assert "say it with --yes" in refusal(2, "studies", "delete", "compare")
        assert len(data("studies", "list")) == 1

    def test_a_study_that_is_not_there(self, folder: Path) -> None:
        primevo("compare", "known/1", "known/2", "--seeds", 2)
        for verb in (("runs", "compar"), ("delete", "compar", "--yes")):
            told = refusal(3, "studies", *verb)
            assert "no study 'compar'; did you mean 'compare'?; there are: 'compare'" in told
        assert len(data("studies", "list")) == 1


def csv_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))
