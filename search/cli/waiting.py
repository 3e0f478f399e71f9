"""What long work says on a terminal's stderr while it goes on. In a pipe or a log it is silent."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from search.cli.output import stderr
from workers.machine.progress import Tell, silent

_Item = TypeVar("_Item")


@contextmanager
def waiting(text: str) -> Iterator[Tell]:
    """Shows the text with a bar, or, until something is told, with a spinner and the time that has
    passed. What is shown goes when the block ends."""
    if not stderr().is_terminal:
        yield silent
        return
    # A descriptor of its own: what frameworks print to stderr may be led elsewhere meanwhile.
    with os.fdopen(os.dup(sys.stderr.fileno()), "w") as terminal, _bar(terminal) as progress:
        task = progress.add_task(text, total=None)

        def tell(done: float, total: float) -> None:
            progress.update(task, completed=done, total=total or None)

        yield tell


class _Count(MofNCompleteColumn):
    """2/3; nothing before anything is counted."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.completed or task.total else Text()


def _bar(terminal: TextIO) -> Progress:
    return Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), _Count(),
        TimeElapsedColumn(), TimeRemainingColumn(),
        console=Console(file=terminal), transient=True,
    )  # fmt: skip


def each(items: Sequence[_Item], text: str) -> Iterable[_Item]:
    """The items, with a bar that counts them."""
    with waiting(text) as tell:
        for done, item in enumerate(items):
            tell(done, len(items))
            yield item
