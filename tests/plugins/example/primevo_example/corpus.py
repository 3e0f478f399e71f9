"""A corpus: sentences that count, generated and therefore never missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workers.data.corpora import CORPORA, Corpus, DataError, Document, Source

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def _count(source: Source) -> int:
    count = source.options.get("documents", 60)
    if not isinstance(count, int) or count < 3:
        raise DataError(f"data.options.documents is {count}: write a whole number of 3 or more")
    return count


def read(source: Source) -> Iterator[Document]:
    for number in range(_count(source)):
        digits = " ".join(WORDS[int(digit)] for digit in str(number))
        yield Document(f"number/{number}", f"The number {number} is {digits}. " * 40)


def fingerprint(source: Source) -> dict[str, Any]:
    return {"version": 1, "documents": _count(source)}


COUNTING = Corpus(
    name="counting",
    meaning="sentences that count",
    read=read,
    fingerprint=fingerprint,
    key="options",
    options=("documents",),
)


def register() -> None:
    CORPORA.register(COUNTING)
