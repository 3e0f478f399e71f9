"""How a model's experts are used, from the loads of its routed calls."""

from __future__ import annotations

import math
from statistics import fmean

from workers.engines.engine import Loads
from workers.spec.outcome import Routing


def usage(loads: Loads) -> Routing | None:
    """The mean over routed calls; None where there are none, or nothing was routed."""
    calls = [_usage(load.tolist(), dropped) for load, dropped in loads if load.sum() > 0]
    if not calls:
        return None
    return Routing(*(fmean(column) for column in zip(*calls, strict=True)))


def _usage(load: list[float], dropped: float) -> tuple[float, float, float, float]:
    total, n = sum(load), len(load)
    shares = [part / total for part in load if part > 0]
    unevenness = math.log(n) + sum(share * math.log(share) for share in shares)
    return len(shares) / n, max(unevenness, 0.0), max(shares) * n - 1, dropped
