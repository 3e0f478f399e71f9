"""The split of a corpus into train, validation and test.

It follows a hash of the document's name, so it is the same in every process, and adding documents
moves no old one. Each of several named sources is split by itself.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Literal

from workers.data.corpora import DataError, Document, Sources, documents, parts

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

HELD_OUT = 0.05
"""Share of the documents that validation gets, and test as well."""

SMALL = 1000
"""A corpus of fewer documents is looked at whole, so that none of its splits is empty."""


def split_corpus(spec: Sources) -> Iterator[tuple[Split, Document]]:
    """Each document with the split it belongs to; those of a named source have its name for a
    task."""
    for name, part in parts(spec).items():
        try:
            for split, document in split_documents(documents(part)):
                yield split, document._replace(task=name) if name else document
        except DataError as error:
            raise DataError(f"source '{name}': {error}" if name else str(error)) from error


def split_documents(corpus: Iterable[Document]) -> Iterator[tuple[Split, Document]]:
    """Each document with the split it belongs to: about 90, 5 and 5 % of the documents.

    No split is left empty: where chance gives one no document, it takes one from train. One or two
    documents alone are each cut by position instead.
    """
    stream = iter(corpus)
    head = list(itertools.islice(stream, SMALL))
    if not head:
        raise DataError("the corpus has no documents: check `data` in the config")
    if len(head) < len(SPLITS):
        yield from _cut(head)
        return
    assigned = _filled([document.name for document in head])
    yield from zip(assigned, head, strict=True)
    for document in stream:
        yield _split_of(document.name), document


def _position(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def _split_of(name: str) -> Split:
    position = _position(name)
    if position < HELD_OUT:
        return "validation"
    return "test" if position < 2 * HELD_OUT else "train"


def _filled(names: list[str]) -> list[Split]:
    """The split of each of at least three names, every split at least once: an empty one takes the
    name of lowest position from the largest."""
    positions = [_position(name) for name in names]
    splits = [_split_of(name) for name in names]
    for wanted in SPLITS:
        if wanted not in splits:
            largest = max(SPLITS, key=splits.count)
            donors = [index for index, split in enumerate(splits) if split == largest]
            splits[min(donors, key=positions.__getitem__)] = wanted
    return splits


def _cut(corpus: list[Document]) -> Iterator[tuple[Split, Document]]:
    """The first 90 % of each document for train, the next 5 % for validation, the rest for test."""
    for document in corpus:
        text = document.text
        first = int(len(text) * (1 - 2 * HELD_OUT))
        second = int(len(text) * (1 - HELD_OUT))
        yield "train", document._replace(text=text[:first])
        yield "validation", document._replace(text=text[first:second])
        yield "test", document._replace(text=text[second:])
