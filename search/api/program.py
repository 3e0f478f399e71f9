"""A program as Python sees it: its text, its graph, what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any

from primitives.graph.build import Graph
from primitives.graph.live import live_program
from primitives.language.dna import DNA
from primitives.language.text import render
from search.campaign.gates import task_cost
from search.config.programfile import checked
from search.config.schema import CampaignConfig
from search.errors import PrimevoError


@dataclass(frozen=True)
class Program:
    """A program that type-checks, under the name that it was found by. `dna` is its genome, frozen
    data; programs with the same `hash` compute the same function of the same weights."""

    name: str
    dna: DNA

    @property
    def text(self) -> str:
        """The program that runs, in the language of docs and `.dna` files. `genome` has more."""
        return render(live_program(self.dna))

    @property
    def genome(self) -> str:
        """The whole genome as text, with what has no effect in it."""
        return render(self.dna)

    @cached_property
    def _graph(self) -> Graph:
        return checked(self.dna, self.name)

    @property
    def hash(self) -> str:
        """128 bits of the canonical graph, in hexadecimal."""
        return self._graph.hash

    @property
    def graph(self) -> Drawing:
        """The canonical graph, which a notebook shows as a picture."""
        return Drawing(self.name, self.dna)

    def cost(self, config: CampaignConfig) -> Mapping[str, int]:
        """Static cost at the sizes of a config's task: `parameters`, `active_parameters`,
        `flops_per_token` of the forward pass, `activation_bytes`."""
        found = task_cost(checked(self.dna, self.name, config.task), config.task)
        names = ("parameters", "active_parameters", "flops_per_token", "activation_bytes")
        return {name: getattr(found, name) for name in names}

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<Program {self.name}, hash {self.hash[:8]}>\n{self.text}"

    def _repr_html_(self) -> str:
        title = f"<b>{escape(self.name)}</b> <code>{self.hash[:8]}</code>"
        return f'{title}<pre style="line-height:1.35">{escape(self.text)}</pre>'


@dataclass(frozen=True, slots=True)
class Drawing:
    """A program's canonical graph as a picture: subroutines as boxes, shapes on edges."""

    title: str
    _dna: DNA
    _before: DNA | None = None

    def against(self, other: Program) -> Drawing:
        """The same with what is new since `other` in green, what changed in yellow, and what is
        gone in red."""
        return Drawing(f"{self.title} against {other.name}", self._dna, other.dna)

    def dot(self) -> str:
        """Graphviz source."""
        from search.report import drawing

        return drawing.dot(self._dna, self.title, self._before)

    def svg(self) -> str:
        """The picture, or a PrimevoError where it cannot be laid out."""
        from search.report import drawing

        return drawing.svg(self._dna, self.title, self._before)

    def __repr__(self) -> str:
        return f"<graph of {self.title}, {len(checked(self._dna, self.title).nodes)} nodes>"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        """The picture where it can be drawn, else Graphviz source as text."""
        try:
            return {"image/svg+xml": self.svg(), "text/plain": repr(self)}
        except PrimevoError as error:
            return {"text/plain": f"{self!r}: {error}\n{self.dot()}"}
