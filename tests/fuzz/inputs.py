"""What targets have in common: what one is, and how its bytes become a text or a file."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """`seeds` are inputs to begin with; `attempt` is given one of their mutants. A `slow` one takes
    more than some milliseconds."""

    name: str
    seeds: Callable[[], Sequence[bytes]]
    attempt: Callable[[bytes], str | None]
    slow: bool = False


@cache
def folder() -> Path:
    """Where targets write the files that they have read."""
    return Path(tempfile.mkdtemp(prefix="fuzz-"))


def written(name: str, data: bytes) -> Path:
    path = folder() / name
    path.write_bytes(data)
    return path


def as_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


@contextlib.contextmanager
def replaced(module: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
