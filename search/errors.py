"""What a user did wrong or asked for in vain, with the exit code the command line gives it."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

INTERRUPTED = 130
"""The exit code after Ctrl-C, also where the campaign was drained cleanly."""


class PrimevoError(Exception):
    """A failure to tell in one message, without a traceback."""

    exit_code = 1


class UsageError(PrimevoError):
    """The command, a config or a program file is wrong."""

    exit_code = 2


class NotFoundError(PrimevoError):
    """A name or an id that does not exist."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a config: `place` is file:line, `key` the dotted path to it."""

    place: str
    key: str
    text: str

    @property
    def line(self) -> int:
        """For sorting; what came from the command line stands last."""
        number = self.place.rpartition(":")[2]
        return int(number) if number.isdigit() else sys.maxsize

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.key, self.text) if part)


class ConfigError(UsageError):
    """Everything that is wrong in one config, in one message."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = [f"{source} has {count}", *(f"  {problem}" for problem in problems)]
        super().__init__("\n".join(lines))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """'; did you mean 'X'?', or nothing where nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def ended_by(error: BaseException) -> str:
    """What ended a campaign, in one line."""
    if isinstance(error, KeyboardInterrupt):
        return "it was stopped at once by a second Ctrl-C"
    text = " ".join(str(error).split()) or "no message"
    told = isinstance(error, PrimevoError | RuntimeError)  # a pool's errors are sentences, too
    return (text if told else f"{type(error).__name__}: {text}")[:500]
