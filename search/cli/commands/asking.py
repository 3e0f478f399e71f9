"""A question to the person at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from search.errors import UsageError


def agreed(question: str) -> bool:
    """The answer of a person; a UsageError where there is none to ask."""
    if not sys.stdin.isatty():
        raise UsageError(f"{question} there is no terminal to answer at; say it with --yes")
    return typer.confirm(question, err=True)


@contextmanager
def deleting(what: str, yes: bool) -> Iterator[None]:
    """Asks, unless `yes`, runs the block, and says what was deleted; exit code 1 where a person
    says no."""
    if not (yes or agreed(f"delete {what}?")):
        print("nothing was deleted", file=sys.stderr)
        raise typer.Exit(1)
    yield
    print(f"deleted {what}", file=sys.stderr)
