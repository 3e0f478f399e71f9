"""How long work says how far it is, to whoever wants to show it."""

from __future__ import annotations

from collections.abc import Callable

Tell = Callable[[float, float], None]
"""Called with what is done and with all that there is to do, in any unit; all is 0 while nobody
knows."""


def silent(done: float, total: float) -> None:
    """For work that nobody watches."""
