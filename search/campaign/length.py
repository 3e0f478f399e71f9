"""How many candidates a campaign has in all: its config says so, until its search ends early, or
somebody asks for another number."""

from __future__ import annotations

from search.campaign.history import fold
from search.config.plugins import stored_config
from search.config.schema import CampaignConfig
from search.errors import UsageError
from search.storage.store import CampaignRow, Store


def with_candidates(config: CampaignConfig, count: int) -> CampaignConfig:
    """The config with another number of candidates in all."""
    search = config.search.model_copy(update={"candidates": count})
    return config.model_copy(update={"search": search})


def resize(store: Store, campaign: CampaignRow, count: int) -> CampaignRow:
    """Has the campaign end at `count` candidates, the recorded ones counted, and returns it anew.

    With the number that is recorded already, its final phase comes next. Raises a UsageError where
    more are recorded, where a final run is (it was chosen among those that were there then), or
    where a controller runs the campaign.
    """
    name, config = campaign.name, stored_config(campaign.config, campaign.name)
    if store.running(campaign.id):
        raise UsageError(f"campaign '{name}' is running; end it first by: primevo stop {name}")
    state = fold(config.search, store.events(campaign.id, config.search.goals))
    if state.finals or campaign.finished_at is not None:
        raise UsageError(
            f"campaign '{name}' has begun its final phase, and its number of candidates is fixed; "
            f"launch another campaign that starts from its best: search.seeds: [campaign:{name}]"
        )
    least = max(state.candidates, len(config.search.seeds))
    if count < least:
        raise UsageError(
            f"--candidates {count} is less than campaign '{name}' has already; give {least}, with "
            "which its search ends now, or more"
        )
    store.reconfigure(campaign.id, with_candidates(config, count).model_dump_json())
    return store.campaign(name)
