"""The error of a malformed program, and the wording that every refusal shares."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ProgramError(ValueError):
    """A program that cannot be read: says where, what is wrong and what is allowed."""


def unknown(kind: str, value: str, allowed: Iterable[str]) -> str:
    """'unknown KIND 'VALUE'; did you mean 'NEAR'? allowed: ...' for a name that is not in a set."""
    names = list(allowed)
    folded = {name.lower(): name for name in names}
    near = difflib.get_close_matches(value.lower(), folded, n=1)
    hint = f" did you mean '{folded[near[0]]}'?" if near else ""
    return f"unknown {kind} '{value}';{hint} allowed: {', '.join(names)}"
