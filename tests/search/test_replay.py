"""A stored campaign is derived again: what was recorded is found to be so, and what was changed
since is found."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from search.campaign import queries
from search.campaign.controller import Controller
from search.campaign.replay import replay
from search.campaign.version import deciding, differences
from search.errors import PrimevoError
from search.storage.database import StoreError
from search.storage.store import Store
from tests.plugins.conftest import EXAMPLE
from tests.search.instant import InstantEvaluator, launch, make_config, outcome_of
from tests.search.test_controller import ROOT, start, wait_for
from tests.search.test_first_version import DUMP
from workers.spec.outcome import Job, Measurement, Outcome, Report


class RandomEvaluator(InstantEvaluator):
    """Ends jobs in any order, several a call or none, with outcomes of every kind; its capacity
    changes. It may fail altogether after `lifetime` jobs, as a killed controller would."""

    def __init__(self, rng: Random, lifetime: int = sys.maxsize) -> None:
        super().__init__(capacity=8)
        self.rng, self.lifetime = rng, lifetime

    def capacity(self) -> int:
        return self.rng.randrange(1, 8)

    def submit(self, job: Job) -> None:
        self._jobs.append(job)
        self.submitted.append(job)

    def wait(self, timeout_s: float) -> list[Report]:
        if len(self.submitted) > self.lifetime:
            raise PrimevoError("the cluster is gone")
        self.rng.shuffle(self._jobs)
        count = self.rng.randrange(len(self._jobs) + 1)
        return [
            Report(job, self.outcome(job), "any/1")
            for job in (self._jobs.popleft() for _ in range(count))
        ]

    def outcome(self, job: Job) -> Outcome:
        if job.id > 2 and self.rng.random() < 0.3:
            status = self.rng.choice(("diverged", "out_of_memory", "timed_out", "crashed"))
            return Outcome(status, "for no reason", val_loss=self.rng.choice((None, 3.0)))
        loss = self.rng.choice((1.0, 1.5, self.rng.random() * 4))
        made = outcome_of(job)
        curve = (*made.curve[:-1], Measurement(1, 1, 1.0, loss))
        return Outcome("completed", val_loss=loss, curve=curve, hurdles_passed=len(curve) - 1)


@settings(max_examples=5, deadline=None)
@example(seed=2542, lifetime=24)
@given(seed=st.integers(0, 2**32), lifetime=st.integers(3, 60))
def test_what_was_lived_is_derived_again(
    tmp_path_factory: pytest.TempPathFactory, seed: int, lifetime: int
) -> None:
    """However runs ended, and wherever the campaign was cut off and gone on with."""
    rng = Random(seed)
    weights = rng.choice(({"delete": 1.0}, {"bank": 1.0, "insert": 2.0}, {"field": 1.0, "swap": 1}))
    path = tmp_path_factory.mktemp("lived") / "a.db"
    with Store.open(f"sqlite:///{path}") as store:
        campaign = launch(
            store, seed=rng.randrange(99), candidates=35, mutations=weights,
            seeds=("transformer", "switch"),
        )  # fmt: skip
        parts = []
        for jobs in (lifetime, sys.maxsize):
            try:
                Controller(store, campaign, RandomEvaluator(rng, jobs)).run()
            except PrimevoError as error:  # some weights lead where no child passes the gates
                assert "cluster is gone" in str(error) or "no child passed" in str(error)
            parts.append(replay(store, "test"))
        recorded = queries.summary(store, "test").progress.recorded
    part, whole = parts
    assert part.difference is None and part.notes == () and part.candidates <= 35
    assert (whole.candidates, whole.difference, whole.notes) == (recorded, None, ())


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A finished campaign of three workers, with duplicates and failures, as a database file."""
    path = tmp_path_factory.mktemp("lived") / "a.db"
    with Store.open(f"sqlite:///{path}") as store:
        launch(store, candidates=80, mutations={"delete": 1.0, "field": 1.0})
        Controller(store, store.campaign("test"), InstantEvaluator(3)).run()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    return path.read_bytes()


@pytest.fixture
def altered(lived: bytes, tmp_path: Path) -> Callable[[str], Store]:
    """The campaign after a statement that nobody should have run."""

    def alter(statement: str) -> Store:
        path = tmp_path / "a.db"
        path.write_bytes(lived)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA foreign_keys=OFF")
            assert connection.execute(statement).rowcount > 0, "the statement changed nothing"
        return Store.open(f"sqlite:///{path}")

    return alter


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE candidates SET parent_id = id - 2 WHERE id = 30",
         "candidate 30: its parent_id is recorded as 28 and derived as "),
        ("UPDATE candidates SET mutation = 'swap' WHERE id = 30",
         "candidate 30: its mutation is recorded as swap and derived as "),
        ("UPDATE candidates SET hash = 'f' WHERE id = 30", "candidate 30: its hash is recorded"),
        ("UPDATE candidates SET hash = 'f' WHERE id = 1", "candidate 1: its hash is recorded"),
        ("UPDATE candidates SET rejections = '{}' WHERE id = (SELECT max(id) FROM candidates "
         "WHERE rejections != '{}')", "its rejections is recorded as {} and derived as {"),
        ("UPDATE candidates SET dna = replace(dna, 'attended', 'attented') WHERE id = 30",
         "candidate 30: its program differs: line "),
        ("UPDATE candidates SET duplicate_of = 1 WHERE duplicate_of = (SELECT max(duplicate_of) "
         "FROM candidates)", "its duplicate_of is recorded as 1 and derived as "),
        ("DELETE FROM candidates WHERE id = 30", "candidate 31: its id is recorded as 31 and"),
        ("DELETE FROM evaluations WHERE sequence = 40", "evaluation 40 is missing"),
        ("UPDATE evaluations SET seed = 5 WHERE sequence = 40 AND worker IS NOT NULL OR "
         "sequence = 41", "was trained with another seed, 5"),
        ("UPDATE evaluations SET seed = 5 WHERE kind = 'final' AND sequence = (SELECT "
         "max(sequence) FROM evaluations)", "was trained with another seed, 5"),
        ("UPDATE evaluations SET val_loss = val_loss - 1 WHERE worker IS NULL AND outcome = "
         "'completed' AND sequence > 40", "taken over from its original, and is another one"),
        ("UPDATE evaluations SET val_loss = 0.01 WHERE sequence = 20", "and derived as "),
        ("UPDATE candidates SET endings = endings + 7 WHERE id = 30",
         "ends a run of candidate 30, which had none to end"),
        ("UPDATE candidates SET endings = 3 WHERE id = 30",
         "candidate 30 was proposed after 3 endings, but "),
        ("UPDATE campaigns SET seed = seed + 1", "candidate 1 was trained with another seed"),
    ],
)  # fmt: skip
def test_a_row_that_was_changed_is_found(
    altered: Callable[[str], Store], statement: str, told: str
) -> None:
    with altered(statement) as store:
        found = replay(store, "test")
    assert found.difference is not None and told in found.difference, found
    assert found.candidates <= 80 and len(found.difference.splitlines()) == 1


def test_what_has_changed_since_is_told(altered: Callable[[str], Store]) -> None:
    """Weights that are not those that the children were proposed with; an older version."""
    weights = """UPDATE campaigns SET config = replace(config, '"delete":1.0', '"delete":9.0')"""
    with altered(weights) as store:
        found = replay(store, "test")
        assert found.difference is not None
        assert found.notes == (
            "from candidate 1 on: search.mutations was delete 1.0, field 1.0 and is delete 9.0, "
            "field 1.0 now",
        )
    other = (
        """UPDATE campaigns SET versions = replace(versions, '"primevo": "', '"primevo": "9.')"""
    )
    with altered(other) as store:
        found = replay(store, "test")
        assert found.difference is None and len(found.notes) == 1
        assert found.notes[0].startswith("from candidate 1 on: primevo was 9.")
    with altered("UPDATE campaigns SET versions = NULL") as store:
        assert "was not noted" in replay(store, "test").notes[0]


def test_a_later_version_that_goes_on_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(f"sqlite:///{tmp_path}/a.db") as store:
        campaign = launch(store, candidates=20)
        with pytest.raises(PrimevoError):
            Controller(store, campaign, RandomEvaluator(Random(1), lifetime=9)).run()
        now = deciding(make_config(candidates=20))
        monkeypatch.setattr("search.campaign.controller.deciding", lambda _: {**now, "x": "2"})
        Controller(store, campaign, RandomEvaluator(Random(2))).run()
        Controller(store, campaign, RandomEvaluator(Random(2))).run()
        noted = store.campaign("test").versions
        assert [entry["versions"].get("x") for entry in noted] == [None, "2"]
        first = noted[1]["first"]
        assert 1 < first <= 20
        found = replay(store, "test")
    assert found.difference is None
    assert found.notes == (f"from candidate {first} on: x was 2 and is not there now",)
    assert differences({"a": "1"}, {"a": "1"}) == []


def test_rows_without_the_order_are_ordered_by_time(altered: Callable[[str], Store]) -> None:
    with altered("UPDATE candidates SET endings = NULL") as store:
        assert replay(store, "test").difference is None


def test_a_campaign_of_the_first_version(tmp_path: Path) -> None:
    """It was recorded by the code of its day, which today's need not agree with; the parts that
    both have are read, and the version is told."""
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.executescript(DUMP.read_text(encoding="utf-8"))
    with Store.open(f"sqlite:///{tmp_path}/a.db") as store:
        found = replay(store, "first")
    assert "was not noted" in found.notes[0]
    assert found.candidates == 15 or found.difference is not None


def test_a_campaign_that_runs(tmp_path: Path) -> None:
    """Replayed again and again while another process writes; nothing is written by it."""
    path = tmp_path / "a.db"
    with Store.open(f"sqlite:///{path}") as store:
        launch(store, candidates=2000, population=5, tournament=2)
        process = start(f"sqlite:///{path}", capacity=3, delay_s=0.002)
        try:
            seen = [0]
            while seen[-1] < 25:
                wait_for(lambda: len(list(store.events(1))) > 2 * seen[-1] + 8)
                found = replay(store, "test")
                assert found.difference is None and found.notes == (), found
                seen.append(found.candidates)
            assert store.running(1)
        finally:
            process.kill()
            process.communicate()
    assert seen == sorted(seen)


WITH_PLUGIN = """
import sys
from random import Random
from search.campaign.controller import Controller
from search.campaign.replay import replay
from search.config.schema import CampaignConfig
from search.storage.store import Store
from tests.search.test_replay import RandomEvaluator
with Store.open(sys.argv[1]) as store:
    if sys.argv[2] == "live":
        campaign = store.create_campaign("test", sys.argv[3], 3)
        Controller(store, campaign, RandomEvaluator(Random(3))).run()
    print(replay(store, "test"))
"""


def test_plug_ins_propose_again(tmp_path: Path) -> None:
    """In processes of their own: a table never forgets the rows of a plug-in."""
    raw = make_config(candidates=30).model_dump(mode="json")
    raw["plugins"] = ["primevo_copied"]
    raw["search"]["mutations"] = {"insert": 1.0, "fold": 1.0}
    shutil.copytree(EXAMPLE / "primevo_example", tmp_path / "primevo_copied")
    for file in (tmp_path / "primevo_copied").glob("*.py"):
        file.write_text(file.read_text().replace("primevo_example", "primevo_copied"))

    def run(*arguments: str) -> str:
        command = [sys.executable, "-c", WITH_PLUGIN, f"sqlite:///{tmp_path}/a.db", *arguments]
        path = os.pathsep.join([str(tmp_path), *sys.path])
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True,
            text=True, check=True,
        )  # fmt: skip
        return done.stdout

    assert "candidates=30, difference=None, notes=()" in run("live", json.dumps(raw))
    with (tmp_path / "primevo_copied" / "mutation.py").open("a") as file:
        file.write("# another edition\n")
    told = run("again")
    assert "candidates=30, difference=None" in told
    assert "from candidate 1 on: plug-in primevo_copied was " in told


def test_a_damaged_program_is_one_message(altered: Callable[[str], Store]) -> None:
    with altered("UPDATE candidates SET rejections = '[1]' WHERE id = 9") as store:
        found = replay(store, "test")
        assert found.difference is not None and "rejections" in found.difference
    with (
        altered("UPDATE evaluations SET curve = 'x' WHERE sequence = 9") as store,
        pytest.raises(StoreError, match="damaged"),
    ):
        replay(store, "test")


def test_on_both_databases(store: Store) -> None:
    campaign = launch(store, candidates=30)
    Controller(store, campaign, RandomEvaluator(Random(4))).run()
    found = replay(store, "test")
    assert (found.candidates, found.difference, found.notes) == (30, None, ())
    with store._engine.begin() as connection:
        connection.execute(text("UPDATE candidates SET mutation = 'swop' WHERE id = 20"))
    assert "candidate 20: its mutation" in str(replay(store, "test").difference)


@pytest.mark.slow
def test_a_trained_campaign_is_the_same_in_another_process(tmp_path: Path) -> None:
    """One worker and budgets in steps: ids, hashes, parents, mutations, refusals, losses."""

    def trained(name: str) -> list[list[object]]:
        command = [sys.executable, "-m", "tests.search.trained", f"sqlite:///{tmp_path}/{name}.db"]
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        found: list[list[object]] = json.loads(done.stdout)
        return found

    first = trained("a")
    losses = [value for row in first[6:] for value in row if isinstance(value, float)]
    assert len(first) == 6 + 8 and len(set(losses)) > 20
    assert trained("b") == first
    with Store.open(f"sqlite:///{tmp_path}/a.db") as store:
        assert replay(store, "trained").difference is None
