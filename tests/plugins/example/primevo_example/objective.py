"""An objective: each position predicts the token after the next one."""

from __future__ import annotations

from typing import Any

from workers.spec.objectives import OBJECTIVES, Batch, Objective


def two_ahead(windows: Any, vocabulary: int, random: Any) -> Batch:
    """Windows a b c d e: after a comes c, after b comes d, after c comes e."""
    return Batch(windows[:, :-2], windows[:, 2:])


TWO_AHEAD = Objective(
    name="two_ahead",
    meaning="the token after the next one is predicted",
    batch=two_ahead,
    lookahead=2,
)


def register() -> None:
    OBJECTIVES.register(TWO_AHEAD)
