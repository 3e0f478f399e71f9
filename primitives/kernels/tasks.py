"""Token ids that tell the task of their document: SPAN times the task's number, plus the id.

So a window of text carries its tasks wherever it goes. Ids of texts without tasks are those of task
0. The functions take arrays of whole numbers of any framework.
"""

from __future__ import annotations

from typing import Any

Tensor = Any

SPAN = 1 << 17
"""Ids of one task: more than any vocabulary has. 2^14 tasks fit into 31 bits."""


def ids_of(tokens: Tensor) -> Tensor:
    """The ids alone."""
    return tokens % SPAN


def tasks_of(tokens: Tensor) -> Tensor:
    """The numbers of the tasks."""
    return tokens // SPAN
