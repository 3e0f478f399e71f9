"""A lineage whose answer is known beforehand, trained for real on workers."""

from __future__ import annotations

from pathlib import Path

import pytest

import primevo
from search.storage.store import Store
from tests.study.known import SEED, campaign_of

CONFIG = {
    "task": {
        "model": {"d_model": 32, "layers": 2, "sequence_length": 32},
        "optimizer": {"learning_rate": 3e-3, "warmup_steps": 10},
        "training": {"batch_size": 16, "eval_batches": 8},
    },
    "search": {
        "candidates": 2,
        "population": 2,
        "tournament": 1,
        "budget": {"unit": "steps", "base": 60},
        "final": {"top": 1, "seeds": 3},
    },
    "workers": {"count": 2},
}
BLIND = SEED.replace(
    "  fed = feed(x)", "  kept = C MUL(x) constant=c0\n  fed = feed(kept)"
).replace("ADD(x, fed)", "ADD(kept, fed)")
NOTHING = BLIND.replace("  out =", "  same = C MUL(fed) constant=c1\n  out =").replace(
    "ADD(kept, fed)", "ADD(kept, same)"
)
SEES = NOTHING.replace("  kept = C MUL(x) constant=c0\n", "").replace("kept", "x")


@pytest.mark.slow
def test_the_change_that_lets_a_block_see_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seed program takes its input times zero, so that its model knows the frequencies of bytes
    at best. To delete that product is what helps; a product with one does nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRIMEVO_STORAGE", raising=False)
    config = primevo.load_config(CONFIG)
    with Store.open("sqlite:///primevo.db") as store:
        campaign_of(store, (BLIND, NOTHING, SEES), config=config)
    with primevo.open_campaign("known") as campaign:
        nothing, sees, whole = primevo.explain(campaign, 3).table
        assert sees["inserted"] == sees["removed"] == whole["inserted"] == "helps"
        assert sees["inserted_gain"] > 0.3
        assert nothing["inserted"] == nothing["removed"] == "no clear effect"
        assert abs(nothing["inserted_gain"]) < 0.05
        compared = primevo.compare("known/1", "known/3", config=config, points=4).table
        assert compared[1]["verdict"] == "better" and compared[1]["speedup_flops"] > 1.5
        assert compared[1]["difference"] == pytest.approx(-whole["inserted_gain"], abs=1e-4)
