"""Workers that die while they compile, train and report real candidates; losses that are not
numbers, at once and late. One campaign, on one worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.ledger import Campaign, assert_whole
from tests.processes import alive

pytestmark = pytest.mark.faults

CANDIDATES = 8
TASK = (
    "{data: {max_documents: 40}, model: {d_model: 16, layers: 1, sequence_length: 16},\n"
    "  training: {batch_size: 4, eval_batches: 2}}"
)


def test_workers_that_die_cost_one_run_and_bad_losses_none(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, settings={"PRIMEVO_ENTRY": "tests.faults.training:act"})
    campaign.configure(CANDIDATES, "{count: 1, cpus_per_worker: 1}", TASK, base=1)
    phases = {1: "compiles", 3: "trains", 4: "reports"}
    campaign.plan({**phases, 5: "nan at once", 6: "nan late"})
    campaign.finish(400)

    status = assert_whole(campaign, CANDIDATES)
    rows = {id: row for (id, kind, _), row in campaign.rows().items() if kind == "search"}
    begun = {id: times for (id, seed), times in campaign.begun().items() if (id, "search", seed)
             in campaign.rows()}  # fmt: skip
    for id, phase in phases.items():
        assert (tmp_path / f"died-{phase}").exists()
        assert begun[id] == 2
        assert rows[id][1] == "completed"
        assert rows[id][3] > 0
    assert rows[5][1:3] == ("diverged", "training loss is nan by step 1")
    assert rows[6][1] == "diverged"
    assert rows[6][2].startswith("validation loss is ")
    assert begun[5] == begun[6] == 1
    assert {failure["first"] for failure in status["failures"]} >= {5, 6}
    assert not any(map(alive, campaign.processes()))
