"""The checkpoints of a campaign's paused candidates, as far as this machine sees them."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from search.config.schema import PAUSED


def discard(weights: Path) -> None:
    """Removes all of them from a campaign's folder of weights, and that folder if nothing else is
    in it: no candidate goes on any more."""
    shutil.rmtree(weights / PAUSED, ignore_errors=True)
    with suppress(OSError):
        weights.rmdir()
