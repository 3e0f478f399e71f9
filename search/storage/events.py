"""What is recorded of a campaign: proposals, endings, and its controller's heartbeat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal, NamedTuple

from workers.spec.metrics import METRICS
from workers.spec.outcome import Outcome, Status

Kind = Literal["search", "final"]

_STAGE = "band "


def stage(hurdle: int) -> str:
    """The kind of the row of a run that was paused at a hurdle, counted from 0, and has a later
    row: its ending at the end of that band of the budget.

    >>> stage(0)
    'band 1'
    """
    return f"{_STAGE}{hurdle + 1}"


def kind_of(stored: str) -> str:
    """What a row with this kind is an ending of: a stage is one of the search."""
    return "search" if stored.startswith(_STAGE) else stored


class Proposed(NamedTuple):
    """A candidate that passed the gates. `rejections` counts, by reason, the children that were
    refused before it; `duplicate_of` is the earlier candidate whose outcome it takes over.
    `endings` is how many runs had ended when it was proposed: with them the order in which
    everything happened is known. It is None in rows of the first versions. `behaviour` is the
    digest of what it does (primitives.lowering.behaviour); None for duplicates, and where it was
    not asked or cannot be told."""

    id: int
    parent_id: int | None
    mutation: str
    hash: str
    duplicate_of: int | None
    rejections: Mapping[str, int]
    endings: int | None = None
    behaviour: str | None = None


class Ended(NamedTuple):
    """A training run that has ended, or was taken over from the original of a duplicate.

    `sequence` counts the campaign's endings from 1. `losses` are the validation losses along the
    run, one for each hurdle and each point of the budget that was reached and one for the end; None
    where not finite. The last one of a run that was stopped for its pace is that of no hurdle.
    `goals` holds the values of the metrics that were asked for; a campaign asks for its objectives
    (SearchSpec.goals)."""

    sequence: int
    id: int
    kind: Kind
    seed: int
    status: Status
    val_loss: float | None
    val_bpb: float | None
    test_loss: float | None
    test_bpb: float | None
    hurdles_passed: int
    losses: tuple[float | None, ...]
    step_time_s: float | None = None
    goals: tuple[float | None, ...] = ()

    def at_hurdles(self, places: Sequence[int]) -> tuple[float | None, ...]:
        """The losses at the hurdles that were reached, which `places` says where to find among
        `losses`."""
        if self.status != "completed":  # what it ended with is no hurdle's
            places = places[: self.hurdles_passed]
        return tuple(self.losses[at] for at in places if at < len(self.losses))

    @property
    def fitness(self) -> float | None:
        return self.val_loss if self.status == "completed" else None

    @classmethod
    def of(
        cls,
        sequence: int,
        id: int,
        kind: Kind,
        seed: int,
        outcome: Outcome,
        goals: Sequence[str] = (),
    ) -> Ended:
        """The ending that `outcome` makes, with its values of the metrics `goals`."""
        losses = tuple(finite(point.val_loss) for point in outcome.curve)
        return cls(
            sequence, id, kind, seed, outcome.status,
            finite(outcome.val_loss), finite(outcome.val_bpb),
            finite(outcome.test_loss), finite(outcome.test_bpb),
            outcome.hurdles_passed, losses, finite(outcome.step_time_s),
            tuple(finite(METRICS[name].of(outcome)) for name in goals),
        )  # fmt: skip


def finite(value: float | None) -> float | None:
    """A plain number, or None: neither JSON nor a ranking has a place for NaN and infinity."""
    if value is None or not isfinite(value):
        return None
    return value if isinstance(value, int) else float(value)


Event = Proposed | Ended


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What only the running controller knows, left in the database about once a second.

    `running` jobs on `capacity` slots; `waiting` says why nothing runs, "" otherwise; `eta_s` is
    None until it can be told; `at` is in seconds since the epoch, UTC. `ended` says why a
    controller ended that did not finish the campaign, "" while it runs.
    """

    at: float
    running: int
    capacity: int
    waiting: str
    eta_s: float | None
    host: str
    pid: int
    ended: str = ""
