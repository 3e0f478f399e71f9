"""The programs that a search starts from: data files beside this module, `programs/NAME.dna`."""

from __future__ import annotations

from functools import cache, lru_cache
from importlib.resources import files

from primitives.errors import ProgramError, unknown
from primitives.graph.build import Graph, IllTyped, build
from primitives.language.dna import DNA
from primitives.language.text import parse

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


@lru_cache(maxsize=64)
def other_graph(program: str, bidirectional: bool = True) -> Graph:
    """The graph of a seed program's name, or of a program's text; ProgramError with the reason
    where it has none in a `bidirectional` task, or in any other."""
    graph = build(other_program(program), bidirectional)
    if isinstance(graph, IllTyped):
        raise ProgramError(f"the other program has no type: {graph}")
    return graph


def other_program(program: str) -> DNA:
    """A seed program by name, or a program from its text."""
    return parse(program, "other") if "\n" in program else load_seed(program)
