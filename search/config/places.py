"""Places of a budget at which runs are scored on their way."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, isclose

from workers.spec.outcome import Unit


def evenly(
    unit: Unit, amount: float, count: int, beside: Sequence[float] = (), end: float | None = None
) -> tuple[float, ...]:
    """`count` evenly spread places before `amount`, at the same distances on to before `end` where
    that is given, without those that are in `beside`: in order, in `unit`. Steps and tokens are
    whole numbers, so there are fewer places than asked for where they would coincide."""
    if count == 0:
        return ()
    last = amount if end is None else end
    number = ceil((count + 1) * last / amount)
    places = [amount * (place + 1) / (count + 1) for place in range(number)]
    if unit in ("steps", "tokens"):
        places = [float(ceil(place)) for place in places]
    taken = (*beside, last)
    return tuple(
        place
        for place in sorted(set(places))
        if place < last and not any(isclose(place, other) for other in taken)
    )
