"""Program texts compared: side by side, and what a step of a lineage changed."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher, unified_diff
from itertools import zip_longest
from typing import Literal, NamedTuple

Mark = Literal["same", "changed", "removed", "added"]


class Pair(NamedTuple):
    """A line of one program beside its partner in the other; None where it has none."""

    mark: Mark
    left: str | None
    right: str | None


class Line(NamedTuple):
    """A line of a difference: `sign` is `+`, `-`, a space, or `@` between two places."""

    sign: str
    text: str


def side_by_side(left: str, right: str) -> Iterator[Pair]:
    """Every line of both texts, in order."""
    before, after = left.splitlines(), right.splitlines()
    for tag, i, j, k, m in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        for one, other in zip_longest(before[i:j], after[k:m]):
            yield Pair(_mark(tag, one, other), one, other)


def difference(before: str, after: str, context: int = 2) -> list[Line]:
    """What changed, with so many lines of context around each change; empty where nothing did."""
    lines = list(unified_diff(before.splitlines(), after.splitlines(), n=context, lineterm=""))
    return [Line(line[:1], "" if line[:1] == "@" else line[1:]) for line in lines[2:]]


def _mark(tag: str, left: str | None, right: str | None) -> Mark:
    if tag == "equal":
        return "same"
    if left is None:
        return "added"
    return "removed" if right is None else "changed"
