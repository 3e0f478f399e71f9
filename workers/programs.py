"""What a task makes of a program: whether it may have it, and what it costs there.

`other` programs are those of the blocks that a candidate leaves out: a seed program by name, or its
text. No framework is imported here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from primitives.cost import Cost, static_cost
from primitives.dna import DNA
from primitives.errors import ProgramError
from primitives.graph import Graph, IllTyped, build, sees_future
from primitives.plan import Setting
from primitives.seeds import load_seed
from primitives.text import parse

if TYPE_CHECKING:
    from workers.task import Task


@lru_cache(maxsize=64)
def other_graph(program: str) -> Graph:
    """The graph of a seed program's name, or of a program's text; ProgramError with the reason
    where there is none."""
    graph = build(other_program(program))
    if isinstance(graph, IllTyped):
        raise ProgramError(f"the other program has no type: {graph}")
    return graph


def other_program(program: str) -> DNA:
    """A seed program by name, or a program from its text."""
    return parse(program, "other") if "\n" in program else load_seed(program)


def setting(task: Task) -> Setting:
    """What the task's blocks are lowered for."""
    training = task.training
    return Setting(
        training.batch_size, task.model.sequence_length, training.capacity_factor, training.routing
    )


def task_cost(graph: Graph, task: Task, vocabulary: int) -> Cost:
    """The static cost of a program at the task's sizes."""
    model = task.model
    other = other_graph(model.other) if graph.every != 1 else None
    return static_cost(
        graph, model.d_model, model.layers, model.sequence_length, vocabulary, setting(task), other
    )


def refused(graph: Graph, task: Task) -> str:
    """Why the task cannot have this program: a decoder that predicts the next token must not see
    it. Empty where it may."""
    return sees_future(graph) if task.training.objective == "next_token" else ""
