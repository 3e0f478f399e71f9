"""What a task makes of a program: whether it may have it, and what it costs there.

No framework is imported here.
"""

from __future__ import annotations

from primitives.graph.build import Graph, IllTyped, build
from primitives.language.dna import DNA
from primitives.lowering.cost import Cost, program_layers, static_cost
from primitives.lowering.dispatch import LoweringOptions
from primitives.programs.seeds import other_graph
from workers.machine.backends import BACKENDS
from workers.spec.objectives import OBJECTIVES
from workers.spec.positions import POSITIONS
from workers.spec.task import Task

BYTES = 256
"""The vocabulary of the bytes tokenizer."""


def task_graph(dna: DNA, task: Task) -> Graph | IllTyped:
    """The canonical graph of a program under the task's objective, or why it has no type there."""
    return build(dna, bidirectional=OBJECTIVES[task.training.objective].bidirectional)


def lowering_options(task: Task) -> LoweringOptions:
    """What the task's blocks are lowered for."""
    training = task.training
    return LoweringOptions(
        training.batch_size,
        task.model.sequence_length,
        training.capacity_factor,
        training.routing,
        dynamic=BACKENDS[training.backend].dynamic
        and training.jit != "on"
        and training.precision != "mixed_bfloat16",
        rotary=POSITIONS[task.model.positions].rotary,
    )


def consistency(graph: Graph) -> float:
    """How much the predictions of two passes of a step are to agree, as a program asks for;
    0 for one pass."""
    return sum(node.value for node in graph.nodes if node.op == "CONSISTENCY")


def behaviour(graph: Graph, task: Task) -> str | None:
    """A digest of what a program does on fixed inputs under the task's positions; None where that
    cannot be told. NumPy is imported when this is first asked."""
    from primitives.lowering.behaviour import behaviour as digest

    return digest(graph, lowering_options(task).rotary)


def divergence(graph: Graph, task: Task) -> str | None:
    """Why training at the task's sizes would diverge within the first steps; None where nothing
    speaks for it. NumPy is imported when this is first asked."""
    from primitives.lowering.divergence import Scale
    from primitives.lowering.divergence import divergence as found

    model = task.model
    layers = len(program_layers(graph.every, model.layers))
    scale = Scale(model.d_model, model.sequence_length, layers, task.training.batch_size)
    return found(graph, scale, lowering_options(task).rotary)


def task_cost(graph: Graph, task: Task, vocabulary: int) -> Cost:
    """The static cost of a program at the task's sizes."""
    model = task.model
    other = other_graph(model.other, model.d_model) if graph.every != 1 else None
    return static_cost(
        graph,
        model.d_model,
        model.layers,
        model.sequence_length,
        vocabulary,
        lowering_options(task),
        other,
        POSITIONS[model.positions].bounded,
        model.share_layers,
    )


def vocabulary_of(task: Task) -> int:
    """How many tokens the corpus has, as far as the task says: a BPE may find fewer."""
    return BYTES if task.data.tokenizer == "bytes" else task.data.vocabulary


def window_length(task: Task) -> int:
    """Tokens of one window of text: those that the model reads, and those that its objective looks
    ahead."""
    return task.model.sequence_length + OBJECTIVES[task.training.objective].lookahead


def needed_tokens(task: Task) -> int:
    """Tokens in a row that a split must have for one window, or one group of windows that follow
    each other."""
    return OBJECTIVES[task.training.objective].stretch(window_length(task))


def refused(graph: Graph, task: Task) -> str:
    """Why the task cannot have a program that has a type there, in one line with the remedy; empty
    where it may: some layer of the model has to run the program. With `every: 4` that is the last
    of four."""
    layers = task.model.layers
    if program_layers(graph.every, layers):
        return ""
    return (
        f"no layer would run the program: with every: {graph.every} that is layer {graph.every} of "
        f"each {graph.every}, and model.layers is {layers}; set model.layers to at least "
        f"{graph.every}, or every to a smaller number or middle"
    )
