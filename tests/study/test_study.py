"""The runner: every run once, recorded as it ends, found again by whoever needs it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from primitives.language.text import parse
from search.campaign.controller import Controller
from search.errors import UsageError
from search.storage.database import StoreError
from search.storage.store import Store
from search.study.runs import known
from search.study.setting import Setting, scaled, setting
from search.study.study import Drained, Study, Subject
from tests.search.instant import InstantEvaluator
from tests.study.known import NEUTRAL, SEED, SINE, SQUARED, answer, final_loss, small_config, study
from workers.spec.outcome import Job, Outcome

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(f"sqlite:///{tmp_path}/study.db")


def subject(text: str, shared: Setting, title: str = "a") -> Subject:
    return Subject.of(title, parse(text, d_model=64), shared)


def test_outcomes_come_by_program_and_seed(store: Store) -> None:
    made, workers = study(store)
    subjects = [subject(text, made.setting) for text in (SEED, SQUARED)]
    for one, runs in zip(subjects, made.run(subjects), strict=True):
        assert {seed: run.val_loss for seed, run in runs.items()} == {
            seed: final_loss(one.dna, seed) for seed in made.setting.seeds
        }
    assert len(workers.submitted) == 6 and all(job.test for job in workers.submitted)


def test_a_run_is_done_once_whatever_the_program_is_called(store: Store) -> None:
    made, workers = study(store)
    twice = [subject(SEED, made.setting), subject(SEED.replace("wide", "broad"), made.setting, "b")]
    first, second = made.run(twice)
    assert first == second and len(workers.submitted) == 3
    again, idle = study(store)
    assert again.run(twice) == [first, second] and idle.submitted == []


def test_what_is_read_back_is_what_was_recorded(store: Store) -> None:
    made, _ = study(store, shared=setting(small_config(), 2, points=4))
    one = subject(SQUARED, made.setting)
    (runs,) = made.run([one])
    found = known(store, made.setting, [(one.hash, seed) for seed in made.setting.seeds])
    assert {seed: outcome for (_, seed), outcome in found.items()} == runs
    assert len(next(iter(runs.values())).curve) == 5


def test_other_settings_are_other_runs(store: Store) -> None:
    base = setting(small_config(), 1)
    others = [
        base,
        setting(small_config(), 1, points=2),
        setting(scaled(small_config(), {"layers": 3}), 1),
        setting(small_config().model_copy(update={"seed": 5}), 1),
        setting(small_config(), 1, first=1),
    ]
    assert len({each.key("h", each.seeds[0]) for each in others}) == len(others)
    assert base.key("h", 1) == setting(small_config(), 1).key("h", 1)


def test_accidents_are_tried_again_and_failures_are_not(store: Store) -> None:
    def failing(status: str) -> InstantEvaluator:
        return InstantEvaluator(1, lambda job: Outcome(status, reason="x"))  # type: ignore[arg-type]

    shared = setting(small_config(), 1)
    one = subject(SEED, shared)
    for status, times in (("crashed", 1), ("timed_out", 1), ("diverged", 1), ("diverged", 0)):
        workers = failing(status)
        Study("test", shared, lambda workers=workers: workers, store).run([one])  # type: ignore[misc]
        assert len(workers.submitted) == times


@pytest.mark.parametrize(("unit", "warns"), [("seconds", True), ("steps", False)])
def test_times_of_different_devices_do_not_compare(store: Store, unit: str, warns: bool) -> None:
    """What ran on one device is found again beside what runs on another one."""
    config = small_config()
    budget = config.search.budget.model_copy(update={"unit": unit})
    search = config.search.model_copy(update={"budget": budget})
    shared = setting(config.model_copy(update={"search": search}), 2)
    told: list[str] = []
    for text, device in ((SEED, "NVIDIA H100"), (SQUARED, "NVIDIA H200")):
        workers = partial(InstantEvaluator, 1, partial(_on, device))
        made = Study("test", shared, workers, store, told.append)
        made.run([subject(each, shared) for each in dict.fromkeys((SEED, text))])
    expected = "different devices, and a budget in seconds buys more steps on a faster one: "
    warnings = [line for line in told if "warning" in line]
    assert len(warnings) == warns
    assert all(f"{expected}NVIDIA H100 (2 runs), NVIDIA H200 (2 runs)" in line for line in warnings)


def _on(device: str, job: Job) -> Outcome:
    return replace(answer(job), device=device)


def test_final_runs_of_a_campaign_are_known(store: Store) -> None:
    """A finalist's run is not done again; with points on the way, it is."""
    checked = small_config()
    row = store.create_campaign("c", checked.model_dump_json(), checked.seed)
    workers = InstantEvaluator(1, answer)
    Controller(store, row, workers).run()
    finals = [job for job in workers.submitted if job.test]
    made, idle = study(store)
    subjects = [Subject.of(f"{job.id}", parse(job.dna), made.setting) for job in finals]
    runs = made.run(subjects)
    assert idle.submitted == [] and len(finals) == 6
    for job, own in zip(finals, runs, strict=True):
        assert own[job.seed].test_loss == answer(job).test_loss
    made, busy = study(store, shared=setting(checked, 3, points=2))
    made.run(subjects)
    assert len(busy.submitted) == 6
    other, busy = study(store, shared=setting(scaled(checked, {"layers": 2}), 3))
    other.run(subjects)
    assert len(busy.submitted) == 6


def test_drained_it_names_what_is_left_and_goes_on(store: Store) -> None:
    made, workers = study(store, capacity=1)

    def rule(job: Job) -> Outcome:
        if len(workers.submitted) == 4:
            made.drain()
        return answer(job)

    workers._outcome = rule
    subjects = [subject(text, made.setting) for text in (SEED, SQUARED, SINE)]
    with pytest.raises(Drained, match="5 of its runs are left: the same command goes on") as caught:
        made.run(subjects)
    assert caught.value.exit_code == 130
    again, rest = study(store)
    again.run(subjects)
    assert len(rest.submitted) == 5


SCRIPT = """
import sys
from search.storage.store import Store
from tests.study.known import *
from tests.study.test_study import subject
with Store.open(sys.argv[1]) as store:
    made, workers = study(store, capacity=1)
    workers._delay_s = 0.05
    made.run([subject(text, made.setting) for text in (SEED, SQUARED, NEUTRAL, SINE)])
    print(len(workers.submitted))
"""


def test_killed_it_does_only_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "killed.db"
    Store.open(f"sqlite:///{path}").close()

    def count() -> int:
        return int(sqlite3.connect(path).execute("SELECT count(*) FROM study_runs").fetchone()[0])

    command = [sys.executable, "-c", SCRIPT, f"sqlite:///{path}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    deadline = time.monotonic() + 60
    while count() < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = count()
    assert 4 <= before < 12
    with Store.open(f"sqlite:///{path}") as store:
        made, workers = study(store)
        made.run([subject(text, made.setting) for text in (SEED, SQUARED, NEUTRAL, SINE)])
    assert len(workers.submitted) == 12 - before and count() == 12


def test_two_processes_may_record_one_run(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/two.db"
    with Store.open(url) as first, Store.open(url) as second:
        made, workers = study(first)
        one = subject(SEED, made.setting)

        def rule(job: Job) -> Outcome:
            study(second)[0].run([one])
            return answer(job)

        workers._outcome = rule
        made.run([one])


@pytest.mark.parametrize("damage", ["result = '[1]'", "result = 'x'", "result = '{}'"])
def test_a_damaged_row_is_told_in_one_message(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.db"
    with Store.open(f"sqlite:///{path}") as store:
        made, _ = study(store)
        one = subject(SEED, made.setting)
        made.run([one])
        with sqlite3.connect(path) as connection:
            connection.execute(f"UPDATE study_runs SET {damage}")
        with pytest.raises(StoreError, match=r"x\.db: its content is damaged .* restore a copy"):
            study(store)[0].run([one])


def test_sizes_that_cannot_be_are_told() -> None:
    with pytest.raises(UsageError, match="no size 'width'; there are: d_model, layers"):
        scaled(small_config(), {"width": 3})
    with pytest.raises(UsageError, match=r"scale {'d_model': 30}: task.model.d_model"):
        scaled(small_config(), {"d_model": 30})
    secret = small_config().model_copy(update={"storage": "postgresql://me:word@host/db"})
    assert scaled(secret, {"layers": 2}).storage == secret.storage
    assert scaled(small_config(), {"d_model": 128, "layers": 2}).task.model.layers == 2
