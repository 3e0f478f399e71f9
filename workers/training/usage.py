"""How a model's experts are used, from the loads of its routed calls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean

from workers.engines.engine import Loads


def usage(loads: Loads) -> Mapping[str, float]:
    """Four numbers by name, each the mean over routed calls; nothing where no token was routed.

    `used`: the share of experts that any token went to. `unevenness`: the KL divergence of the
    experts' load from an even one, in nats. `max_violation`: the largest load over the mean one,
    less 1. `dropped`: the share of choices that training's full buffers would have dropped.
    For example, two experts with loads 6 and 2: 1.0, 0.13, 0.5.
    """
    calls = [_usage(load.tolist(), dropped) for load, dropped in loads if load.sum() > 0]
    return {name: fmean(call[name] for call in calls) for name in calls[0]} if calls else {}


def _usage(load: list[float], dropped: float) -> dict[str, float]:
    total, n = sum(load), len(load)
    shares = [part / total for part in load if part > 0]
    unevenness = math.log(n) + sum(share * math.log(share) for share in shares)
    return {
        "used": len(shares) / n,
        "unevenness": max(unevenness, 0.0),
        "max_violation": max(shares) * n - 1,
        "dropped": dropped,
    }
