"""Which tasks seed programs are for."""

from __future__ import annotations

from functools import cache

from primitives.graph.build import Graph, build
from primitives.programs.seeds import load_seed


@cache
def objective_of(name: str) -> str:
    """next_token, or masked for a program that sees both sides."""
    return "next_token" if isinstance(build(load_seed(name)), Graph) else "masked"
