"""What all runs of a study have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from search.campaign.proposal import final_seed
from search.config.places import evenly
from search.config.plugins import versions
from search.config.schema import CampaignConfig
from search.errors import UsageError
from workers.spec.identity import identity
from workers.spec.outcome import Budget
from workers.spec.task import Task

SCALABLE = ("d_model", "layers", "sequence_length")
"""What `scaled` changes of a task's model."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Every run trains on `task` under `budget`, which has no hurdles: a run is scored at the
    budget's points on its way. `seeds` has a seed for each run of a program: all programs get the
    same ones, so that differences are paired. `plugins` are those that the task needs, with their
    versions."""

    task: Task
    budget: Budget
    seeds: tuple[int, ...]
    plugins: tuple[Mapping[str, str], ...] = ()

    def key(self, hash: str, seed: int) -> str:
        """What the run of a program under a seed is found by: 64 hexadecimal digits that depend on
        all that decides its outcome but the machine."""
        budget, task = self.budget, identity(self.task.model_dump(mode="json"))
        whole = [
            task, [dict(each) for each in self.plugins], budget.unit, budget.amount,
            list(budget.points), hash, seed,
        ]  # fmt: skip
        return blake2b(json.dumps(whole, sort_keys=True).encode(), digest_size=32).hexdigest()


def setting(config: CampaignConfig, seeds: int, *, points: int = 0, first: int = 0) -> Setting:
    """The task of a config under the budget of its final phase.

    The seeds are those of the final phase's runs, from number `first` on: the first runs of a
    campaign's finalists are known already. A run is scored at `points` evenly spread points before
    its end.
    """
    unit, amount = config.search.budget.unit, config.search.final_amount
    return Setting(
        config.task,
        Budget(unit, amount, points=evenly(unit, amount, points)),
        tuple(final_seed(config.seed, first + index) for index in range(seeds)),
        tuple(versions(config.plugins)),
    )


def scaled(config: CampaignConfig, sizes: Mapping[str, int]) -> CampaignConfig:
    """The config with other sizes of its model; a UsageError where one cannot be."""
    document: dict[str, Any] = config.model_dump(mode="json")
    document["storage"] = config.storage  # a dump has no password
    for name, value in sizes.items():
        if name not in SCALABLE:
            raise UsageError(f"scale: no size '{name}'; there are: {', '.join(SCALABLE)}")
        document["task"]["model"][name] = value
    try:
        return CampaignConfig.model_validate_json(json.dumps(document))
    except ValueError as error:
        reason = str(error).splitlines()
        raise UsageError(f"scale {dict(sizes)}: {' '.join(reason[1:3])}") from None
