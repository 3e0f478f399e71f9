"""What long work says on a terminal's stderr while it goes on. In a pipe or a log it is silent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from search.cli.output import stderr

_Item = TypeVar("_Item")

Tell = Callable[[float, float], None]
"""Called with what is done and with all that there is; 0 of 0 while nobody knows."""


@contextmanager
def waiting(text: str) -> Iterator[Tell]:
    """Shows the text with a bar, or, until something is told, with a spinner and the time that has
    passed. What is shown goes when the block ends."""
    console = stderr()
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    ) as progress:  # fmt: skip
        task = progress.add_task(text, total=None)

        def tell(done: float, total: float) -> None:
            progress.update(task, completed=done, total=total or None)

        yield tell


def each(items: Sequence[_Item], text: str) -> Iterable[_Item]:
    """The items, with a bar that counts them."""
    with waiting(text) as tell:
        for done, item in enumerate(items):
            tell(done, len(items))
            yield item
