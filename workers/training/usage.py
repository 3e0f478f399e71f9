"""How a model's experts are used, from the loads of its routed calls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean

from primitives.lowering.layer import Array
from workers.engines.engine import Loads


def usage(loads: Loads) -> Mapping[str, float]:
    """Five numbers by name, each the mean over routed calls; nothing where no token was routed.

    `used`: the share of experts that any token went to. `unevenness`: the KL divergence of the
    experts' load from an even one, in nats. `gate_unevenness`: the same of their gates, summed over
    tokens, which is how He 2024 (PEER, section 3.3) counts. `max_violation`: the largest load over
    the mean one, less 1. `dropped`: the share of choices that training's full buffers would have
    dropped. For example, two experts with loads 6 and 2: 1.0, 0.13, 0.5, and with gates that sum to
    3 and 1 a `gate_unevenness` of 0.13.
    """
    calls = [_usage(*each) for each in loads if each[0].sum() > 0]
    return {name: fmean(call[name] for call in calls) for name in calls[0]} if calls else {}


def _usage(load: Array, dropped: float, gates: Array) -> dict[str, float]:
    return {
        "used": float((load > 0).mean()),
        "unevenness": _unevenness(load),
        "gate_unevenness": _unevenness(gates),
        "max_violation": float(load.max() / load.mean()) - 1,
        "dropped": dropped,
    }


def _unevenness(amounts: Array) -> float:
    """The KL divergence from equal amounts, in nats."""
    total, parts = float(amounts.sum()), [float(part) for part in amounts if part > 0]
    shares = [part / total for part in parts]
    terms = [share * math.log(share) for share in shares if share > 0]  # gates may sum to infinity
    return max(0.0, math.log(len(amounts)) + sum(terms))
