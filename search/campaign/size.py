"""What a program costs before it is trained, as people and programs are shown it."""

from __future__ import annotations

from primitives.graph.build import Graph
from primitives.language.dna import DNA
from primitives.ops.table import PRIMITIVES
from search.campaign.gates import task_cost
from search.config.programfile import checked
from workers.spec.task import Task


def size_of(dna: DNA, task: Task) -> dict[str, int | str]:
    """Hash, length and static cost of a program that type-checks, at the task's sizes."""
    graph = checked(dna, "the program")
    cost = task_cost(graph, task)
    return {
        "hash": graph.hash,
        "instructions": dna.length,
        "parameters": cost.parameters,
        "active_parameters": cost.active_parameters,
        "flops_per_token": cost.flops_per_token,
        "activation_bytes": cost.activation_bytes,
        **_training_only(graph),
    }


def _training_only(graph: Graph) -> dict[str, str]:
    """What is different while the program trains, if anything."""
    notes = {op: PRIMITIVES[op].training for op in sorted(graph.ops) if op in PRIMITIVES}
    text = "; ".join(f"{op}: {note}" for op, note in notes.items() if note)
    return {"in_training": text} if text else {}
