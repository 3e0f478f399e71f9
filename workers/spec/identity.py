"""Whether two tasks are the same one, whichever versions wrote them down.

Runs of studies are found by their task, and campaigns of earlier versions have tasks without the
keys that came later. Where such a key says what was done before it existed, it says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ADDED: dict[tuple[str, str], Any] = {
    ("model", "positions"): "learned",
    ("model", "share_layers"): False,
}
"""What was done before a key of a task existed."""


def identity(task: Mapping[str, Any]) -> dict[str, Any]:
    """A task as JSON data without what earlier versions did not say. `task` is a dump of a Task, or
    what an earlier version stored of one."""
    made = dict(task)
    for (part, key), before in ADDED.items():
        inner = made.get(part)
        if isinstance(inner, Mapping) and inner.get(key) == before:
            made[part] = {name: value for name, value in inner.items() if name != key}
    return made
