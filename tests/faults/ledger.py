"""Books that tests keep on a campaign: what was recorded, and whether it stayed so."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

TWO_WORKERS = "{count: 2, cpus_per_worker: 1}"
SMALL_TASK = "{model: {d_model: 32, layers: 1}}"

Run = tuple[int, str, int]
"""Candidate, kind and seed: what may be recorded once."""


@dataclass
class Campaign:
    """A campaign `c` in a folder of its own, run by processes of the command line.

    `module` is the command line that runs it; `settings` are environment variables."""

    folder: Path
    module: str = "tests.faults.campaign"
    settings: Mapping[str, str] = field(default_factory=dict)

    def configure(
        self, candidates: int, workers: str = TWO_WORKERS, task: str = SMALL_TASK, base: int = 20
    ) -> None:
        """Writes the config: one hurdle after `base` steps, and final runs."""
        (self.folder / "c.yaml").write_text(
            f"task: {task}\n"
            f"search: {{population: 8, tournament: 3, candidates: {candidates},\n"
            f"  budget: {{unit: steps, base: {base}, hurdles: 1}}, final: {{top: 1, seeds: 2}}}}\n"
            f"workers: {workers}\n"
        )

    def plan(self, faults: Mapping[int, str]) -> None:
        """What is to happen to candidates; see `tests.faults.entries`."""
        (self.folder / "faults.json").write_text(json.dumps(faults))

    @property
    def environment(self) -> dict[str, str]:
        here = {"PYTHONPATH": str(ROOT), "PRIMEVO_FAULTS": str(self.folder)}
        inherited = {key: value for key, value in os.environ.items() if key != "PRIMEVO_STORAGE"}
        return {**inherited, **here, **self.settings}

    def command(self, *arguments: str) -> list[str]:
        """The command line that runs the campaign."""
        return [sys.executable, "-m", self.module, *arguments]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A process of the command line, in a session of its own."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder, env=self.environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def go_on(self) -> subprocess.Popen[str]:
        """Launches the campaign, or resumes it where it is in the database."""
        return self.start(
            *(("resume", "c") if self.recorded() is not None else ("launch", "c.yaml"))
        )

    def finish(self, seconds: float = 300) -> str:
        """Runs the campaign to its end; returns what was said on stderr."""
        process = self.go_on()
        try:
            _, said = process.communicate(timeout=seconds)
        finally:
            process.kill()
        assert process.returncode == 0, said
        return said

    def rows(self) -> dict[Run, tuple[Any, ...]]:
        """Every recorded run, but for copies."""
        with closing(sqlite3.connect(self.folder / "primevo.db", timeout=30)) as connection:
            found = connection.execute(
                "SELECT candidate_id, kind, seed, sequence, outcome, reason, val_loss, worker "
                "FROM evaluations WHERE worker IS NOT NULL"
            ).fetchall()
        rows = {row[:3]: row[3:] for row in found}
        assert len(rows) == len(found), "a run is recorded twice"
        return rows

    def recorded(self) -> int | None:
        """How many runs are recorded; None while there is no campaign."""
        try:
            with closing(sqlite3.connect(f"file:{self.folder}/primevo.db?mode=ro", uri=True)) as db:
                if not db.execute("SELECT count(*) FROM campaigns").fetchone()[0]:
                    return None
                return int(db.execute("SELECT count(*) FROM evaluations").fetchone()[0])
        except sqlite3.OperationalError:  # no file or no table yet
            return None

    def status(self) -> dict[str, Any]:
        """`status -o json`, from another process."""
        answer = subprocess.run(
            [sys.executable, "-m", "search.cli", "status", "c", "-o", "json"],
            cwd=self.folder, env=self.environment, capture_output=True, text=True,
        )  # fmt: skip
        assert answer.returncode == 0, answer.stderr
        record: dict[str, Any] = json.loads(answer.stdout)
        return record

    def begun(self) -> Counter[tuple[int, int]]:
        """How often each run was begun, by candidate and seed."""
        path = self.folder / "runs"
        lines = path.read_text().splitlines() if path.exists() else []
        return Counter((int(id), int(seed)) for id, seed, _ in map(str.split, lines))

    def processes(self) -> set[int]:
        """The workers that ever ran a candidate."""
        return {int(line.split()[2]) for line in (self.folder / "runs").read_text().splitlines()}


def kept(before: Mapping[Run, object], after: Mapping[Run, object]) -> bool:
    """Whether all that was recorded before is recorded now, unchanged."""
    return all(after.get(run) == row for run, row in before.items())


def assert_whole(campaign: Campaign, candidates: int) -> dict[str, Any]:
    """The campaign has ended, with one outcome for each candidate and each final run, and no more
    than its budget of candidates. Returns its status."""
    status = campaign.status()
    assert (status["state"], status["phase"]) == ("finished", "done")
    assert status["recorded"] == status["candidates"] == candidates
    assert status["pending"] == 0
    assert status["trained"] + status["duplicates"] == candidates
    rows = campaign.rows()
    search = {id for id, kind, _ in rows if kind == "search"}
    assert len(search) == status["trained"]
    finals = [run for run in rows if run[1] == "final"]
    assert len(finals) == sum(row["planned"] for row in status["final"])
    assert sorted(row[0] for row in rows.values())[-1] <= candidates + len(finals)
    return status
