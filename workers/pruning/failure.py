"""Why a model could not be pruned."""

from __future__ import annotations


class PruningError(Exception):
    """What is wrong, and what to do."""


class TooMuch(PruningError):
    """A target that no cut reaches."""


class Diverged(PruningError):
    """A loss that is not finite."""


class Interrupted(PruningError):
    """Asked to stop; what there is was kept."""
