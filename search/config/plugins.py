"""The plug-ins of a config: loaded before the rest of it means anything, and told apart by version.

A campaign's config names corpora, objectives, mutations and primitives that plug-ins may have
brought. So whoever reads a stored config reads it with `stored_config`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from search.config.earlier import as_launched
from search.config.schema import CampaignConfig
from search.errors import PrimevoError, UsageError
from workers import plugins
from workers.plugins import Plugin, PluginError


def load_plugins(names: Iterable[str]) -> tuple[Plugin, ...]:
    """Loads the plug-ins, or raises a UsageError for the first that cannot be loaded."""
    try:
        return plugins.load(names)
    except PluginError as error:
        raise UsageError(str(error)) from None


def stored_config(text: str, campaign: str) -> CampaignConfig:
    """The config that a campaign was launched with, from the JSON in its row; its plug-ins are
    loaded first. Raises a UsageError where one is missing, a PrimevoError where the text is no
    config."""
    try:
        data = json.loads(text)
        plugins.load(named(data))
        return CampaignConfig.model_validate_json(json.dumps(as_launched(data)))
    except PluginError as error:
        raise UsageError(f"campaign '{campaign}' was launched with a plug-in: {error}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise PrimevoError(
            f"campaign '{campaign}': its stored config cannot be read ({_first(error)}); it was "
            "damaged, or stored by another version: restore a copy of the database"
        ) from error


def _first(error: Exception) -> str:
    """What is wrong, in a line: of a config's problems the first."""
    if not isinstance(error, ValidationError):
        return str(error).partition("\n")[0][:200]
    details = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, details['loc']))}: {details['msg']}"[:200]


def named(data: Any) -> list[str]:
    """The plug-ins that a config names, as far as it is well formed."""
    found = data.get("plugins") if isinstance(data, Mapping) else None
    items = found if isinstance(found, list) else []
    return [item for item in items if isinstance(item, str)]


def versions(names: Iterable[str]) -> list[dict[str, str]]:
    """What a campaign's row records: each plug-in's name and version, as JSON data."""
    return [{"name": one.name, "version": one.version} for one in load_plugins(names)]


def changes(recorded: Iterable[Mapping[str, str]], now: Iterable[Mapping[str, str]]) -> list[str]:
    """A line for each plug-in whose version is not the recorded one. Both are lists of `versions`.

    >>> changes([{"name": "a", "version": "1"}], [{"name": "a", "version": "2"}])
    ["plug-in 'a' was at version 1 when the campaign was launched and is at 2 now"]
    """
    before = {one["name"]: one["version"] for one in recorded}
    return [
        f"plug-in '{one['name']}' was at version {before[one['name']]} when the campaign was "
        f"launched and is at {one['version']} now"
        for one in now
        if before.get(one["name"], one["version"]) != one["version"]
    ]
