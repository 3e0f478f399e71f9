"""The seed programs, which a search starts from: data files beside this module, `NAME.dna`."""

from __future__ import annotations

from functools import cache, lru_cache
from importlib.resources import files

from primitives.errors import ProgramError, unknown
from primitives.graph.build import Graph, IllTyped, build
from primitives.language.dna import DNA
from primitives.language.text import parse

_FOLDER = files("primitives") / "programs"
_ENDING = ".dna"

DEFAULT_WIDTH = 64
"""d_model where nothing says another: channels of the default task."""


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


@lru_cache(maxsize=256)
def load_seed(name: str, d_model: int = DEFAULT_WIDTH) -> DNA:
    """The seed program of this name, its constants resolved for a model of `d_model` channels;
    ProgramError with the near miss if there is none."""
    return parse(seed_text(name), name + _ENDING, d_model)


@lru_cache(maxsize=64)
def other_graph(program: str, d_model: int, bidirectional: bool = True) -> Graph:
    """The graph of a seed program's name, or of a program's text, in a model of `d_model` channels;
    ProgramError with the reason where it has none in a `bidirectional` task, or in any other."""
    graph = build(other_program(program, d_model), bidirectional)
    if isinstance(graph, IllTyped):
        raise ProgramError(f"the other program has no type: {graph}")
    return graph


def other_program(program: str, d_model: int) -> DNA:
    """A seed program by name, or a program from its text, in a model of `d_model` channels."""
    return parse(program, "other", d_model) if "\n" in program else load_seed(program, d_model)
