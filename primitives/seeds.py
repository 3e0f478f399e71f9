"""The programs that a search starts from: data files beside this module, `programs/NAME.dna`."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from primitives.dna import DNA
from primitives.errors import ProgramError, unknown
from primitives.text import parse

_FOLDER = files("primitives") / "programs"
_ENDING = ".dna"


@cache
def seed_names() -> tuple[str, ...]:
    """Names of the seed programs, sorted."""
    names = (entry.name for entry in _FOLDER.iterdir())
    return tuple(sorted(name[: -len(_ENDING)] for name in names if name.endswith(_ENDING)))


def seed_text(name: str) -> str:
    """A seed program's file, comments and all."""
    if name not in seed_names():
        raise ProgramError(unknown("seed program", name, seed_names()))
    return (_FOLDER / (name + _ENDING)).read_text(encoding="utf-8")


@cache
def load_seed(name: str) -> DNA:
    """The seed program of this name; ProgramError with the near miss if there is none."""
    return parse(seed_text(name), source=name + _ENDING)
