"""The versions of all that decides which children a campaign proposes: a line for each, by name.

Two campaigns with the same config, seed, outcomes and versions are the same. A campaign's row keeps
the versions that its candidates were proposed by, so that a replay can tell why it differs.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from search.config.plugins import load_plugins
from search.config.schema import CampaignConfig
from workers.plugins import sources

_ROOT = Path(__file__).parents[2]
_DECIDING = ("primitives", "search/campaign", "search/config", "search/evolution", "workers/spec")
"""Folders whose code and seed programs decide what is proposed."""


def deciding(config: CampaignConfig) -> dict[str, str]:
    """The versions of Primevo and of the campaign's plug-ins, with a digest of their sources; of
    Python, whose random numbers are used; and the weights of the mutations."""
    weights = config.search.mutations
    found = {
        "primevo": _primevo(),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "search.mutations": ", ".join(f"{name} {weight!r}" for name, weight in weights.items()),
    }
    for plugin in load_plugins(config.plugins):
        found[f"plug-in {plugin.name}"] = f"{plugin.version} {_digest(sources([plugin]))}"
    return found


def differences(recorded: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """A line for each name whose version is not the recorded one.

    >>> differences({"primevo": "1"}, {"primevo": "2"})
    ['primevo was 1 and is 2 now']
    """
    return [
        f"{name} was {recorded.get(name, 'not there')} and is {now.get(name, 'not there')} now"
        for name in dict.fromkeys([*recorded, *now])
        if recorded.get(name) != now.get(name)
    ]


@cache
def _primevo() -> str:
    try:
        number = version("primevo")
    except PackageNotFoundError:
        number = "of no installed version"
    return f"{number} {_digest(_ROOT / folder for folder in _DECIDING)}"


def _digest(places: Iterable[Path]) -> str:
    """Twelve hexadecimal digits that follow from the Python files and programs in these places."""
    made = hashlib.blake2b(digest_size=6)
    for place in places:
        files = sorted(place.rglob("*")) if place.is_dir() else [place]
        for file in files:
            if file.suffix in (".py", ".dna"):
                text = file.read_bytes()
                made.update(f"{file.name} {len(text)} ".encode() + text)
    return made.hexdigest()
