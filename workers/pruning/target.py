"""How much is to go, and the price that drives masks there.

An augmented Lagrangian, lambda (s - t) + STRENGTH (s - t)^2, of the expected share s that is gone
and its target t, which grows linearly from 0. The multiplier lambda follows s - t by plain gradient
ascent.

CoFi learns the second factor, too, and both by Adam, whose steps do not shrink with s - t. Gates
take a while to close: until then its multipliers grow at full speed, and afterwards take as long to
come back, in which s passes t by far where steps are few.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras import ops

from workers.pruning.plan import Masks, Measure, Plan

STRENGTH = 30.0
"""Nats: a share that is off by a tenth costs 0.3."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is to go.

    Attributes:
        measure: of what.
        share: the share of the measure's whole that is to go.
    """

    measure: Measure
    share: float

    def whole(self, plan: Plan) -> float:
        """All that there is of the measure."""
        import numpy as np

        return float(plan.cost(self.measure, plan.all_kept(), np.sum))

    def most(self, plan: Plan) -> float:
        """What may be left of it."""
        return (1 - self.share) * self.whole(plan)


def speedup(factor: float) -> Target:
    """The target of a model that needs this many times fewer FLOPs."""
    return Target("flops", 1 - 1 / factor)


def gone(plan: Plan, target: Target, chances: Masks) -> Any:
    """The expected share of the measure that is gone, as a tensor."""
    return 1 - plan.cost(target.measure, chances, ops.sum) / target.whole(plan)


def price(share: Any, wanted: Any, multiplier: Any) -> Any:
    """The augmented Lagrangian, in nats, of the share that is gone; a scalar of scalars."""
    miss = share - wanted
    return multiplier * miss + STRENGTH * miss * miss
