"""The table of a pruning: models side by side, with their cost, losses and speed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from primitives.lowering.cost import Cost, layers_cost
from workers.data.tokens import TokenSplits
from workers.pruning.speed import BATCHES, tokens_per_second
from workers.pruning.student import Model, scorer
from workers.spec.fit import lowering_options, window_length
from workers.spec.objectives import OBJECTIVES
from workers.spec.positions import POSITIONS
from workers.spec.task import Task


@dataclass(frozen=True, slots=True)
class Row:
    """A model of the table: its name, cost, steps of training, losses in bits a byte, and tokens a
    second of a forward pass with one sequence and with many (see `speed.BATCHES`)."""

    name: str
    layers: int
    cost: Cost
    steps: int
    val_bpb: float
    test_bpb: float
    speed: tuple[float, ...]


def table(
    models: Mapping[str, Model], steps: Mapping[str, int], task: Task, tokens: TokenSplits
) -> tuple[Row, ...]:
    """A row for each model; `steps` says how long each was trained."""
    timed = [tokens_per_second(models, task, batch) for batch in BATCHES]
    return tuple(
        Row(
            name,
            len(model.layers),
            _cost(model, task),
            steps[name],
            *_bits(model, task, tokens),
            tuple(each[name] for each in timed),
        )
        for name, model in models.items()
    )


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as JSON data."""
    return [asdict(row) for row in rows]


def from_json(rows: Sequence[Mapping[str, Any]]) -> tuple[Row, ...]:
    """And back."""
    return tuple(
        Row(**{**row, "cost": Cost(**row["cost"]), "speed": tuple(row["speed"])}) for row in rows
    )


def _cost(model: Model, task: Task) -> Cost:
    rows, width = model.values[0].shape
    learned = POSITIONS[task.model.positions].bounded
    return layers_cost(model.graphs, width, rows, lowering_options(task), learned)


def _bits(model: Model, task: Task, tokens: TokenSplits) -> tuple[float, float]:
    """Bits a byte on the fixed slices of validation and test, as candidates are scored."""
    training, length = task.training, window_length(task)
    objective = OBJECTIVES[training.objective]
    shape = (training.eval_batches, training.batch_size)
    score = scorer(model, task)

    def bits(split: str) -> float:
        loss, _ = score(objective.fixed(getattr(tokens, split), length, shape))
        return loss / math.log(2) / tokens.bytes_per_token[split]

    return bits("validation"), bits("test")
