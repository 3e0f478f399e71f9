"""Where an exported program comes from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.campaign.proposal import final_seed
from search.campaign.queries import Record
from search.config.schema import CampaignConfig
from workers.spec.outcome import Budget


def origin_of(
    config: CampaignConfig,
    title: str,
    campaign: str | None = None,
    record: Record | None = None,
    told: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The arguments of `workers.export.export.export_candidate` besides program and folder.

    They decide the weights: budget and seed are those of the final phase's first run, and `weights`
    is the file that it kept of a finalist, if there is one. And they are what `card.json` says of
    where the program comes from. A candidate has its campaign, its record, and what else is `told`
    of it."""
    card: dict[str, Any] = {"program": title, "campaign": campaign}
    card |= {"candidate": record, "budget": config.search.budget.model_dump(mode="json")}
    card |= told or {}
    return {
        "task": config.task,
        "budget": Budget(config.search.budget.unit, config.search.final_amount),
        "seed": final_seed(config.seed, 0),
        "card": card,
        "weights": _kept_weights(config, campaign, record),
    }


def _kept_weights(
    config: CampaignConfig, campaign: str | None, record: Record | None
) -> Path | None:
    """The weights that the final phase kept of a candidate, if it was a finalist."""
    if campaign is None or record is None:
        return None
    file = config.weights_file(campaign, int(record["id"] or 0))
    return file if file.exists() else None
