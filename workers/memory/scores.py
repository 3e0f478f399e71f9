"""What a trained model scores with each memory: temperature and weight are chosen on the validation
split, the score is taken on the test split, and time and room are measured there."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from primitives.graph.build import IllTyped
from primitives.language.dna import DNA
from workers.data.tokens import load_tokens
from workers.machine.backends import use_backend
from workers.memory.contexts import Contexts, contexts_of
from workers.memory.masses import Masses, datastore, earlier, joint, mixed
from workers.memory.memories import MEMORIES, Memory
from workers.memory.nearest import Index, index_of
from workers.spec.fit import task_graph
from workers.spec.objectives import OBJECTIVES
from workers.spec.task import Task

TEMPERATURES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.75)
"""What is tried on the validation split. A weight of 0 does without the memory."""

LONG = 15_000
"""Earlier tokens of a document that are remembered at most (Zhong et al. 2022, section 5)."""

NEIGHBOURS = 1_024
"""Entries of a datastore that a position looks at: as many as Khandelwal et al. 2020."""

ENTRIES = 1 << 17
"""Entries of a datastore, unless more are asked for."""

LABEL_BYTES = 4


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen on the validation split: the temperatures of the memories that share the
    vocabulary's softmax and of those apart, and the weight of the latter; None where it has no
    part."""

    shared: float | None = None
    apart: float | None = None
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class MemoryScore:
    """One memory's row. Losses are in nats a token, over `positions` of each split; speed is tokens
    a second of model and memory together, on the test split; `bytes` are those of vectors and
    labels that it keeps."""

    memory: str
    val_loss: float
    val_bpb: float
    test_loss: float
    test_bpb: float
    tokens_per_second: float
    bytes: int
    choice: Choice
    search: str
    positions: int


def memory_scores(
    dna: DNA, task: Task, weights: Path, names: Sequence[str], entries: int = ENTRIES
) -> list[MemoryScore]:
    """The scores of the memories of these names, for the weights in a file that `evaluate` keeps.
    A split is scored on its first positions, in consecutive segments: as many as its fixed slice
    has. A datastore holds the first `entries` positions of the training split.

    Raises ValueError where the model does not predict the next token.
    """
    use_backend(task.training.backend)
    graph = task_graph(dna, task)
    if isinstance(graph, IllTyped):
        raise ValueError(f"the program has no type in this task: {graph}")
    if not OBJECTIVES[task.training.objective].continues:
        raise ValueError(
            f"memories are of next tokens, and the objective {task.training.objective} has other "
            "ones; choose next_token or one of trime, trime_long and trime_ext"
        )
    from workers.model.shape import embedding_rows, model_shape

    tokens = load_tokens(task.data)
    shape = model_shape(graph, task.model, embedding_rows(task, tokens.vocabulary))
    with np.load(weights) as file:
        values = [file[name] for name in shape.names]
    training = task.training
    most = training.eval_batches * training.batch_size * task.model.sequence_length
    validation, test = (
        contexts_of(graph, task, values, each, most) for each in (tokens.validation, tokens.test)
    )
    stored = None
    if any(MEMORIES[name].stored for name in names):
        stored = contexts_of(graph, task, values, tokens.train, entries)
    widths = tokens.bytes_per_token
    return [_score(MEMORIES[name], validation, test, stored, widths) for name in names]


def _score(
    row: Memory, validation: Contexts, test: Contexts, stored: Contexts | None, widths: Any
) -> MemoryScore:
    index = None
    if row.stored:
        assert stored is not None
        index = index_of(stored.g, by_distance=row.apart == "distance")
    choice, val_loss = _tuned(row, validation, stored, index)
    started = time.perf_counter()
    chances = _chances(row, test, stored, index, choice)
    seconds = time.perf_counter() - started + test.seconds
    test_loss = -float(np.mean(chances))
    return MemoryScore(
        row.name,
        val_loss,
        val_loss / math.log(2) / widths["validation"],
        test_loss,
        test_loss / math.log(2) / widths["test"],
        len(test.labels) / seconds,
        _bytes(row, test, stored),
        choice,
        index.search if index else "",
        len(test.labels),
    )


def _tuned(
    row: Memory, found: Contexts, stored: Contexts | None, index: Index | None
) -> tuple[Choice, float]:
    """The choice with the lowest loss on the validation split, and that loss."""
    shared, chances = None, -found.losses.astype(np.float64)
    if row.shared != "none":
        tried = [joint(found, each) for each in _shared(row, found, TEMPERATURES)]
        best = max(range(len(tried)), key=lambda place: float(np.mean(tried[place])))
        shared, chances = TEMPERATURES[best], tried[best]
    if row.apart == "nothing":
        return Choice(shared), -float(np.mean(chances))
    losses = {
        (temperature, weight): -float(np.mean(mixed(chances, masses, weight)))
        for temperature, masses in zip(
            TEMPERATURES, _apart(row, found, stored, index, TEMPERATURES), strict=True
        )
        for weight in WEIGHTS
    }
    apart, weight = min(losses, key=losses.__getitem__)
    return Choice(shared, apart, weight), losses[apart, weight]


def _chances(
    row: Memory, found: Contexts, stored: Contexts | None, index: Index | None, choice: Choice
) -> npt.NDArray[Any]:
    """log P [N] of the next tokens by what was chosen."""
    chances: npt.NDArray[Any] = -found.losses.astype(np.float64)
    if choice.shared is not None:
        chances = joint(found, _shared(row, found, [choice.shared])[0])
    if choice.apart is not None and choice.weight is not None:
        masses = _apart(row, found, stored, index, [choice.apart])[0]
        chances = mixed(chances, masses, choice.weight)
    return chances


def _shared(row: Memory, found: Contexts, temperatures: Sequence[float]) -> list[Masses]:
    return earlier(found, found.g, None if row.shared == "segment" else LONG, temperatures)


def _apart(
    row: Memory,
    found: Contexts,
    stored: Contexts | None,
    index: Index | None,
    temperatures: Sequence[float],
) -> list[Masses]:
    if row.apart == "states":
        return earlier(found, found.states, LONG, temperatures)
    assert stored is not None and index is not None
    return datastore(found, index, stored.labels, NEIGHBOURS, temperatures)


def _bytes(row: Memory, found: Contexts, stored: Contexts | None) -> int:
    """Of vectors and labels, at the most that are kept at once."""
    entry = found.g.shape[1] * found.g.itemsize + LABEL_BYTES
    longest = int(np.bincount(found.documents).max())
    kept = {"none": 0, "segment": found.length, "document": min(longest, LONG + found.length)}
    held = kept["document"] if row.apart == "states" else kept[row.shared]
    if row.stored and stored is not None:
        held += len(stored.labels)
    return int(held * entry)
