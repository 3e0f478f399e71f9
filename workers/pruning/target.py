"""How much is to go, and the price that drives masks there.

A Lagrangian, price1 (s - t) + price2 (s - t)^2, of the expected share s that is gone and its target
t: prices rise by gradient ascent as long as s misses t. The target grows linearly from 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras import ops

from workers.pruning.plan import Masks, Measure, Plan


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


def price(share: Any, wanted: Any, prices: Any) -> Any:
    """The Lagrangian of the share that is gone; `prices` [2]."""
    miss = share - wanted
    return prices[0] * miss + prices[1] * miss * miss
