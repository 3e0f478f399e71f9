"""Python's collector of garbage cycles, which walks over all young objects after every 700 new ones
and now and then over all objects. What campaigns remember is large and has no cycles, so that it
finds next to nothing."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG = 50_000
"""New objects before they are walked over."""


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Inside, garbage cycles are looked for seldom, and not among the objects from before."""
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(YOUNG, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
