"""What a paused run's checkpoint says beside its arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from workers.machine.arrays import Damaged
from workers.spec.outcome import Budget
from workers.training.losses import POINTS

if TYPE_CHECKING:
    import numpy as np

Count = Annotated[int, Field(ge=0, le=1 << 53)]
Some = Annotated[int, Field(ge=1, le=1 << 53)]
Seconds = Annotated[FiniteFloat, Field(ge=0)]


class Note(BaseModel):
    """Where a run stands that is paused at a hurdle.

    A file may be damaged, or somebody else's: all that is read of one is checked before any of it
    is used, and what does not fit is Damaged.

    Attributes:
        key: a hash of what the run and its checkpoint have to agree in.
        hurdle: the hurdle where it is paused, from 0; it has passed as many.
        val_loss: its score there, in nats per token.
        steps: training steps so far, which took `train_seconds`.
        seconds: what all of its job took so far.
        usage: how its experts were used, see `workers.training.usage`.
        curve: its scores so far, each the fields of a Measurement.
        losses: what `TrainingLosses.kept` gave.
        rng: the state of the generator that draws its windows.
    """

    model_config = ConfigDict(frozen=True)

    key: str
    hurdle: Count
    val_loss: FiniteFloat
    steps: Some
    train_seconds: Seconds
    seconds: Seconds
    usage: dict[str, FiniteFloat]
    curve: tuple[tuple[Some, Some, Seconds, FiniteFloat], ...]
    losses: tuple[Count, Annotated[tuple[tuple[Some, FiniteFloat], ...], Field(max_length=POINTS)]]
    rng: dict[str, Any]

    @classmethod
    def read(cls, note: dict[str, Any]) -> Note:
        """The note of a file. Raises Damaged."""
        try:
            return cls.model_validate(note)
        except ValidationError as fault:
            first = fault.errors()[0]
            place = " ".join(map(str, first["loc"]))
            raise Damaged(" ".join(f"{place}: {first['msg']}".split())[:200]) from fault

    def check(self, budget: Budget, steps: int | None) -> None:
        """Raises Damaged where no run under this budget can stand there. `steps` are those that it
        makes until the hurdle; None under a budget in seconds. The hurdle is one of the budget."""
        place = budget.hurdles[self.hurdle].at
        places = [*(hurdle.at for hurdle in budget.hurdles), *budget.points]
        scored = sum(each <= place for each in places)
        reached = self.train_seconds >= place if steps is None else self.steps == steps
        if len(self.curve) != scored or not reached:
            raise Damaged(
                f"{self.steps} steps in {self.train_seconds:g} s with {len(self.curve)} scores are "
                f"no place of hurdle {self.hurdle + 1}"
            )

    def set_state(self, rng: np.random.Generator) -> None:
        """Has `rng` go on from where the run's own generator was. Raises Damaged."""
        try:
            rng.bit_generator.state = self.rng
        except (KeyError, OverflowError, TypeError, ValueError) as fault:
            raise Damaged("rng: it is no state of a random number generator") from fault
