"""Pydantic's verdict on a whole config. What is wrong is set aside, and a stand-in takes its place:
so the rest is judged in the same message, and with it how keys fit each other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from search.config.document import Keys

ROUNDS = 50
"""How often something may be set aside; each round finds what the one before hid."""

StandIns = Mapping[Keys, Any]
"""For keys without a default: values that clash with none."""

Config = TypeVar("Config", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Verdict(Generic[Config]):
    """`problems` are the mistakes with their key paths, each once. `config` is what the rest makes,
    None where nothing can be made of it; where there are problems, it has stand-ins at the keys
    `aside`, and judges only what does not depend on them."""

    config: Config | None
    problems: tuple[tuple[Keys, ErrorDetails], ...]
    aside: frozenset[Keys]

    def untouched(self, *keys: Keys) -> bool:
        """Whether none of the keys, nor anything above or below them, is a stand-in."""
        return not any(_related(key, other) for key in keys for other in self.aside)


def verdict(data: Any, kind: type[Config], stand_ins: StandIns) -> Verdict[Config]:
    """What is wrong with the plain data of a config of some kind. The data stays as it is."""
    data = deepcopy(data)
    problems: list[tuple[Keys, ErrorDetails]] = []
    aside: set[Keys] = set()
    config: Config | None = None
    for _ in range(ROUNDS):
        try:
            # JSON is the strict input that knows lists and no tuples, as YAML.
            config = kind.model_validate_json(json.dumps(data))
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
            _set_aside(data, key, stand_ins)
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


def _set_aside(data: Any, key: Keys, stand_ins: StandIns) -> None:
    *above, last = key or ("",)
    for part in above:
        data = data.get(part) if isinstance(data, dict) else None
    if not isinstance(data, dict):
        return
    if key in stand_ins:
        data[last] = deepcopy(stand_ins[key])
    else:
        data.pop(last, None)


def _related(one: Keys, other: Keys) -> bool:
    """Whether a key is the other, above it, or below it."""
    return all(mine == theirs for mine, theirs in zip(one, other, strict=False))
