"""Configs of campaigns that earlier versions launched.

A campaign goes on under the rules that it was launched with. Its stored config names every key that
its version knew, so a key that is missing did not exist then, and stands for what was done instead.
"""

from __future__ import annotations

from typing import Any

BEFORE: dict[tuple[str, ...], Any] = {
    ("search", "limits", "step_time_max"): None,  # no step was too slow
    ("search", "budget", "rule"): "median",
    ("search", "behaviour"): False,
    ("search", "divergence"): False,
}
"""What was done before a key existed, where that is not the key's default."""


def as_launched(data: Any) -> Any:
    """A stored config with the keys that it lacks. `data` is its JSON; what is no config comes back
    as it is, for the check that follows."""
    for path, value in BEFORE.items():
        data = _filled(data, path, value)
    return data


def _filled(data: Any, path: tuple[str, ...], value: Any) -> Any:
    if not isinstance(data, dict):
        return data
    key, *rest = path
    if not rest:
        return {key: value, **data}
    return {**data, key: _filled(data[key], tuple(rest), value)} if key in data else data
