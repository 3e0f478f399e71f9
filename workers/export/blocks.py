"""The layers of an exported module: the code of each, and what it needs."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from primitives.graph.build import Graph, Node
from primitives.lowering.emit import Body, emit
from primitives.lowering.rewrite import lowered
from primitives.lowering.stepwise import Step, emit_step, not_stepwise
from primitives.lowering.weights import WeightSpec
from primitives.programs.seeds import other_graph
from workers.export.code import functions
from workers.model.shape import width_of
from workers.spec.fit import lowering_options
from workers.spec.objectives import OBJECTIVES
from workers.spec.task import Task


@dataclass(frozen=True, slots=True)
class Block:
    """One of the module's layers; `pass_attributes` are those attributes of the pass `run` that its
    lines, and the functions that they call, read or change, such as `training` and `losses`. `step`
    is its code for a few new positions, where the model generates text by that; `rotary` says
    whether its products see how far apart positions are; `width` is the only d_model of a layer
    that was cut to sizes of its own; `tasks` are the names of its text's tasks, by number."""

    name: str
    graph: Graph
    body: Body
    pass_attributes: frozenset[str]
    step: Step | None = None
    rotary: bool = False
    width: int | None = None
    tasks: tuple[str, ...] = ()

    @property
    def calls(self) -> set[str]:
        """Names of the functions that its lines call."""
        called = {*self.body.mentioned.functions, *["Run"] * self.body.runs}
        called |= {"foreseen_losses"} if self.uses("baselines") else set()
        return called | (self.step.body.mentioned.functions if self.step else set())

    def uses(self, what: str) -> bool:
        """Whether a pass reads or leaves this attribute of `balancing.Run`."""
        return what in self.pass_attributes

    @property
    def by_task(self) -> bool:
        """Whether it reads of its tokens which task their document belongs to."""
        return "task_entries" in self.body.mentioned.functions

    @property
    def nodes(self) -> tuple[Node, ...]:
        """What its statements compute."""
        return lowered(self.graph, self.rotary)

    @property
    def states(self) -> list[WeightSpec]:
        """Weights that training moves without a gradient."""
        return [w for w in self.body.weights if not w.trainable and w.init == "zeros"]


class Asked(NamedTuple):
    """What a layer's `call` may be asked for in the model: `trainer`, what it asks of the trainer;
    `moves`, whether its states move."""

    trainer: bool = False
    moves: bool = False


def blocks_of(graph: Graph, task: Task, block: str, other: str) -> list[Block]:
    """The program's layer, and that of the blocks that do not run it, if there are any."""
    graphs = {block: graph}
    if graph.every != 1:
        graphs[other] = other_graph(task.model.other, task.model.d_model)
    steps = OBJECTIVES[task.training.objective].continues and not why_not_stepwise(graph, task)
    return [_block(name, each, task, steps) for name, each in graphs.items()]


def cut_blocks(graph: Graph, cut: Sequence[Graph], task: Task, block: str) -> list[Block]:
    """The layers of a model that was cut, each graph once; `graph` is the whole program's."""
    steps = OBJECTIVES[task.training.objective].continues and not why_not_stepwise(graph, task)
    distinct, width = {each.hash: each for each in cut}, task.model.d_model
    return [
        replace(_block(f"{block}{number}", each, task, steps), width=width_of(cut, width))
        for number, each in enumerate(distinct.values(), 1)
    ]


def _block(name: str, graph: Graph, task: Task, steps: bool) -> Block:
    """A layer of this name; with `steps` also its code for a few new positions."""
    width = task.model.d_model
    options = replace(lowering_options(task), dynamic=False)  # it runs under XLA, too
    body = emit(graph, width, owner="self.", options=options)
    called = functions(body.mentioned.functions, body.row_functions)
    attributes = _attributes_of("run", [*body.lines, *called])
    step = emit_step(graph, width, owner="self.", rotary=options.rotary) if steps else None
    return Block(name, graph, body, attributes, step, options.rotary)


def why_not_stepwise(graph: Graph, task: Task) -> str:
    """Why the model cannot be run a few positions at a time; empty where it can."""
    graphs = [graph]
    if graph.every != 1:
        graphs.append(other_graph(task.model.other, task.model.d_model))
    return next(filter(None, map(not_stepwise, graphs)), "")


def _attributes_of(variable: str, sources: Sequence[str]) -> frozenset[str]:
    """Attributes of a variable that these sources name."""
    nodes = (node for source in sources for node in ast.walk(ast.parse(source)))
    return frozenset(
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == variable
    )
