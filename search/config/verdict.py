"""Pydantic's verdict on a whole config. What is wrong is set aside, and a stand-in takes its place:
so the rest is judged in the same message, and with it how keys fit each other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from search.config.document import Keys
from search.config.schema import CampaignConfig

ROUNDS = 50
"""How often something may be set aside; each round finds what the one before hid."""

_BUDGET = {"unit": "steps", "base": 1}
_STAND_INS: dict[Keys, Any] = {
    ("search",): {"candidates": 10**9, "budget": _BUDGET},
    ("search", "candidates"): 10**9,
    ("search", "budget"): _BUDGET,
    ("search", "budget", "unit"): "steps",
    ("search", "budget", "base"): 1,
}
"""For keys without a default: values that clash with none."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`problems` are the mistakes with their key paths, each once. `config` is what the rest makes,
    None where nothing can be made of it; where there are problems, it has stand-ins at the keys
    `aside`, and judges only what does not depend on them."""

    config: CampaignConfig | None
    problems: tuple[tuple[Keys, ErrorDetails], ...]
    aside: frozenset[Keys]

    def untouched(self, *keys: Keys) -> bool:
        """Whether none of the keys, nor anything above or below them, is a stand-in."""
        return not any(_related(key, other) for key in keys for other in self.aside)


def verdict(data: Any) -> Verdict:
    """What is wrong with a config's plain data, which stays as it is."""
    data = deepcopy(data)
    problems: list[tuple[Keys, ErrorDetails]] = []
    aside: set[Keys] = set()
    config = None
    for _ in range(ROUNDS):
        try:
            # JSON is the strict input that knows lists and no tuples, as YAML.
            config = CampaignConfig.model_validate_json(json.dumps(data))
            break
        except ValidationError as error:
            found = list(_found(error))
        for keys, fields, details in found:
            if not any(_related(key, other) for key in fields for other in aside):
                problems.append((keys, details))
        fresh = {_settable(key) for _, fields, _ in found for key in fields} - aside
        if not fresh:
            break  # what remains cannot be set aside
        for key in sorted(fresh, key=len):
            _set_aside(data, key)
        aside |= fresh
    return Verdict(config, tuple(problems), frozenset(aside))


def _found(error: ValidationError) -> Iterator[tuple[Keys, list[Keys], ErrorDetails]]:
    """Each mistake with its key path and the keys that take part in it: of a clash, those that
    `workers.spec.task.clash` names, else the one where it is."""
    for details in error.errors(include_url=False):
        keys: Keys = tuple(key for key in details["loc"] if key != "[key]")
        names = details.get("ctx", {}).get("fields")
        fields = [(*keys, *name.split(".")) for name in names] if names else [keys]
        yield keys, fields, details


def _settable(key: Keys) -> Keys:
    """The key itself, or the list that it is in: without an item, others have other numbers."""
    parts: list[str | int] = []
    for part in key:
        if isinstance(part, int):
            break
        parts.append(part)
    return tuple(parts)


def _set_aside(data: Any, key: Keys) -> None:
    *above, last = key or ("",)
    for part in above:
        data = data.get(part) if isinstance(data, dict) else None
    if not isinstance(data, dict):
        return
    if key in _STAND_INS:
        data[last] = deepcopy(_STAND_INS[key])
    else:
        data.pop(last, None)


def _related(one: Keys, other: Keys) -> bool:
    """Whether a key is the other, above it, or below it."""
    return all(mine == theirs for mine, theirs in zip(one, other, strict=False))
