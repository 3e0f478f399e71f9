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
        "optimizer": {"learning_rate": 1e-2, "warmup_steps": 10},
        "training": {"batch_size": 16, "eval_batches": 8},
    },
    "search": {
        "candidates": 2,
        "population": 2,
        "tournament": 1,
        "budget": {"unit": "steps", "base": 80},
        "final": {"top": 1, "seeds": 3},
    },
    "workers": {"count": 2},
}
NOTHING = SEED.replace("  out =", "  same = C MUL(fed) constant=c1\n  out =").replace(
    "ADD(x, fed)", "ADD(x, same)"
)
LOOKS_BACK = NOTHING.replace("  fed = feed(x)", "  dconv = DCONV 7X1(x)\n  fed = feed(dconv)")


@pytest.mark.slow
def test_the_change_that_lets_positions_see_others_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seed program sees one byte; a convolution over seven is what helps, and a product with
    one does nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRIMEVO_STORAGE", raising=False)
    config = primevo.load_config(CONFIG)
    with Store.open("sqlite:///primevo.db") as store:
        campaign_of(store, (SEED, NOTHING, LOOKS_BACK), config=config)
    with primevo.open_campaign("known") as campaign:
        nothing, looks_back, whole = primevo.explain(campaign, 3).table
        assert looks_back["inserted"] == looks_back["removed"] == whole["inserted"] == "helps"
        assert looks_back["inserted_gain"] > 0.3
        assert nothing["inserted"] == nothing["removed"] == "no clear effect"
        assert abs(nothing["inserted_gain"]) < 0.05
        compared = primevo.compare("known/1", "known/3", config=config, points=4).table
        assert compared[1]["verdict"] == "better" and compared[1]["speedup_flops"] > 1.5
        assert compared[1]["difference"] == pytest.approx(-whole["inserted_gain"], abs=1e-4)
