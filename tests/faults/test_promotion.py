"""A campaign that pauses candidates is killed, loses a checkpoint, and ends as it should."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from primitives.language.text import parse
from search.campaign import queries
from search.campaign.history import State, fold
from search.campaign.replay import replay
from search.storage.store import Store
from tests.faults.promoting import NAME, config, go_on, url
from tests.search.recorded import ask
from workers.spec.outcome import Budget, Hurdle
from workers.training.evaluate import evaluate

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]


def state_of(store: Store, folder: Path) -> State:
    return fold(config(folder).search, store.events(store.campaign(NAME).id))


def killed_when_one_has_gone_on(folder: Path) -> None:
    process = subprocess.Popen([sys.executable, "-m", "tests.faults.promoting", folder], cwd=ROOT)
    end = time.monotonic() + 300
    while not ask(url(folder), "SELECT 1 FROM evaluations WHERE kind = 'band 1'"):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_paused_candidates_stay_paused_and_go_on(tmp_path: Path) -> None:
    with Store.open(url(tmp_path)) as store:
        store.create_campaign(NAME, config(tmp_path).model_dump_json(), 3)
        killed_when_one_has_gone_on(tmp_path)
        before, status = state_of(store, tmp_path), queries.summary(store, NAME)
        assert status.line.state == "interrupted"
        assert status.progress.paused == len(before.rungs) > 4
        paused = tmp_path / "weights" / NAME / "paused"
        waiting = {id for id in before.results if id in before.rungs}
        assert waiting <= {int(file.stem) for file in paused.glob("*.npz")}
        lost = before.promotable()
        assert lost is not None
        (paused / f"{lost}.npz").unlink()

        go_on(tmp_path)
        shown = queries.summary(store, NAME).progress
        assert (shown.phase, shown.pending, shown.paused) == ("done", 0, 0)
        assert shown.went_on == tuple(reached // 2 for reached in shown.reached)
        assert shown.went_on[1] > 0 and not paused.exists()
        assert replay(store, NAME).difference is None
        records = {record["id"]: record for record in queries.records(store, NAME)}
        anew = "trained again from the start, no checkpoint was there"
        rows = ask(url(tmp_path), "SELECT candidate_id, reason FROM evaluations")
        assert {id for id, reason in rows if str(reason).startswith(anew)} == {lost}

        after, spec = state_of(store, tmp_path), config(tmp_path)
        full = [id for id, end in after.results.items() if id > 1 and end.hurdles_passed == 2]
        hurdles = tuple(map(Hurdle, spec.search.budget.hurdles_at))
        for id in {*full[:1], lost}:
            end, dna = after.results[id], store.dna(store.campaign(NAME).id, id)
            whole = evaluate(parse(dna), spec.task, Budget("steps", 14, hurdles), end.seed)
            losses = [point.val_loss for point in whole.curve]
            assert np.allclose(end.losses, losses[: len(end.losses)], rtol=0, atol=1e-6)
            assert records[id]["fitness"] == end.fitness
