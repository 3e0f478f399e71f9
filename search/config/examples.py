"""Example configs: inside an installed wheel, or `configs/` of a checkout."""

from __future__ import annotations

from pathlib import Path

from primitives.errors import unknown
from search.errors import NotFoundError

_INSTALLED = Path(__file__).parents[1] / "example_configs"
_CHECKOUT = Path(__file__).parents[2] / "configs"


def folder() -> Path:
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT


def names() -> list[str]:
    return sorted(path.stem for path in folder().glob("*.yaml"))


def text(name: str) -> str:
    """An example's YAML with its comments."""
    if name not in names():
        raise NotFoundError(unknown("example", name, names()))
    return (folder() / f"{name}.yaml").read_text(encoding="utf-8")
