"""A campaign of any length, written straight into the database: nothing is trained."""

from __future__ import annotations

import random
from typing import Any

from sqlalchemy import insert

from search.config.schema import BudgetSpec, CampaignConfig, FinalSpec, SearchSpec
from search.storage.models import Candidate, Evaluation
from search.storage.store import Store

MUTATIONS = ("insert", "delete", "swap", "field")
HOSTILE = "<script>alert('mine')</script>"
"""A text that must never run."""

CONFIG = SearchSpec(
    candidates=1,
    population=20,
    tournament=5,
    budget=BudgetSpec(unit="steps", base=50, hurdles=1),
    final=FinalSpec(top=1, seeds=3),
)


def write(
    store: Store,
    name: str,
    count: int,
    hostile: bool = False,
    finals: tuple[tuple[float, ...], ...] = ((3.0, 3.1, 3.05), (2.5, 2.6, 2.55)),
) -> None:
    """A finished campaign `name` of `count` candidates. `finals` are the test losses of the fresh
    runs of candidate 1 and of the best other one; bits per byte are 1.5 times those. `hostile` puts
    HOSTILE wherever a text can stand."""
    rng = random.Random(0)
    spec = CONFIG.model_copy(update={"candidates": count})
    row = store.create_campaign(name, CampaignConfig(search=spec).model_dump_json(), 0)
    candidates, evaluations = [], []
    best, losses = 2, {}
    for id in range(1, count + 1):
        duplicate_of = rng.randrange(1, id) if id > 3 and rng.random() < 0.1 else None
        candidates.append(_candidate(row.id, id, duplicate_of, rng, hostile))
        if duplicate_of is None:
            values = _ending(row.id, id, rng, count, hostile)
            if values["outcome"] == "completed" and id > 1:
                losses[id] = values["val_loss"]
        else:
            values = {**evaluations[duplicate_of - 1], "candidate_id": id, "worker": None}
        evaluations.append({**values, "sequence": id, "finished_at": 1000.0 + id})
    best = min(losses, key=lambda id: losses[id]) if losses else 1
    sequence = count
    for id, scores in zip((1, best), finals, strict=False):
        for seed, score in enumerate(scores):
            sequence += 1
            final = {**_ending(row.id, id, rng, count, False), **_final(sequence, seed, score)}
            evaluations.append(final)
    with store._engine.begin() as connection:
        for start in range(0, len(candidates), 1000):
            connection.execute(insert(Candidate), candidates[start : start + 1000])
        for start in range(0, len(evaluations), 1000):
            connection.execute(insert(Evaluation), evaluations[start : start + 1000])
    store.finish(row.id)


def _candidate(
    campaign: int, id: int, duplicate_of: int | None, rng: random.Random, hostile: bool
) -> dict[str, Any]:
    refused = {HOSTILE if hostile else "too many parameters": 1, "feature axes differ": 2}
    return {
        "campaign_id": campaign,
        "id": id,
        "parent_id": None if id == 1 else max(1, id - rng.randrange(1, 100)),
        "mutation": "seed" if id == 1 else HOSTILE if hostile else rng.choice(MUTATIONS),
        "hash": f"{id:032x}",
        "duplicate_of": duplicate_of,
        "rejections": refused if rng.random() < 0.3 else {},
        "dna": f"main(x, y):\n  out = ADD(x, {HOSTILE if hostile else id}{id})\n",
        "created_at": 1000.0 + id,
    }


def _ending(
    campaign: int, id: int, rng: random.Random, count: int, hostile: bool
) -> dict[str, Any]:
    first = 3.0 - 0.5 * id / count + rng.gauss(0, 0.1)
    last = first - 0.3
    passed = id == 1 or rng.random() < 0.5
    failed = id > 2 and rng.random() < 0.03
    points = [[50, 800, 1.0, first], [150, 2400, 3.0, last]][: 1 + passed]
    return {
        "campaign_id": campaign,
        "candidate_id": id,
        "kind": "search",
        "seed": id,
        "unit": "steps",
        "amount": 150.0,
        "hurdles": [[50.0, 3.0]],
        "hurdles_passed": 0 if failed else int(passed),
        "outcome": "diverged" if failed else "completed",
        "reason": HOSTILE if hostile else "",
        "val_loss": None if failed else points[-1][-1],
        "val_bpb": None if failed else 1.5 * points[-1][-1],
        "test_loss": None,
        "test_bpb": None,
        "params": int(1e5 * rng.uniform(0.5, 2)),
        "active_params": 1000,
        "flops_per_token": int(2e5 * rng.uniform(0.5, 2)),
        "step_time_s": rng.uniform(0.01, 0.1),
        "steps": points[-1][0],
        "tokens": points[-1][1],
        "train_seconds": points[-1][2],
        "setup_seconds": 0.5,
        "curve": [] if failed else points,
        "training": [[at, last + 0.5 - at / 300] for at in range(25, points[-1][0] + 1, 25)],
        "worker": HOSTILE if hostile else "machine/1",
    }


def _final(sequence: int, seed: int, score: float) -> dict[str, Any]:
    return {
        "kind": "final",
        "sequence": sequence,
        "seed": 10**6 + seed,
        "outcome": "completed",
        "hurdles": [],
        "hurdles_passed": 0,
        "val_loss": score,
        "val_bpb": 1.5 * score,
        "test_loss": score,
        "test_bpb": 1.5 * score,
        "curve": [[150, 2400, 3.0, score]],
        "finished_at": 10**6 + sequence,
    }
