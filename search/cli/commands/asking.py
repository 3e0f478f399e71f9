"""A question to the person at the terminal."""

from __future__ import annotations

import sys

import typer

from search.errors import UsageError


def agreed(question: str) -> bool:
    """The answer of a person; a UsageError where there is none to ask."""
    if not sys.stdin.isatty():
        raise UsageError(f"{question} there is no terminal to answer at; say it with --yes")
    return typer.confirm(question, err=True)
