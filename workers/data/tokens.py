"""Tokens: a corpus as three memory-mapped arrays, made on first use and shared by all processes.

Bytes: 256 tokens; documents are joined by one byte 0. BPE: byte-level, trained on the train split
only; documents are joined by the token `<|end|>` (id 0). The separator counts as one byte of text,
so that bits per byte compare across tokenizers. Where documents have tasks, each token says which
(`kernels.tasks`).

The cache (`PRIMEVO_CACHE`, else the user's cache folder under `primevo`) holds one folder for each
content: its name is a hash of the spec and the corpus' fingerprint. A folder is complete when it
has its final name; it is written under another one and renamed.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from primitives.kernels.tasks import SPAN, tasks_of
from workers.data.corpora import DataError, Document, Sources, documents, fingerprint, parts
from workers.data.splits import SPLITS, Split, split_corpus, split_documents
from workers.machine.caches import cache_folder
from workers.machine.progress import Tell, silent

Tokens = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.uint32]

FORMAT = 1
"""Part of every cache key: raised when the same spec begins to give other tokens."""

SEPARATOR = "<|end|>"

SEPARATOR_ID = 0
"""What joins documents, in both tokenizers."""

BPE_SAMPLE = 200_000_000
"""Characters of the train split that a BPE is trained on, at most."""

MOST_TASKS = (1 << 31) // SPAN
"""Tasks that a corpus may have: windows are whole numbers of 31 bits."""

BATCH = 64
"""Documents that are encoded together, on all processors."""


class TokenSource(Sources, Protocol):
    """What a token array depends on: `task.data` as a whole."""

    @property
    def tokenizer(self) -> str: ...
    @property
    def vocabulary(self) -> int: ...


@dataclass(frozen=True, slots=True)
class TokenSplits:
    """One-dimensional read-only arrays of token ids below `vocabulary` (uint8 or uint16), and the
    mean number of text bytes that a token stands for, by split. Where documents have tasks, the
    arrays are uint32 and the ids say which, and `tasks` has the bytes that a token of the test
    split stands for, by task, in the order of their numbers."""

    train: Tokens
    validation: Tokens
    test: Tokens
    vocabulary: int
    bytes_per_token: Mapping[str, float]
    tasks: Mapping[str, float] = field(default_factory=dict)

    def of_task(self, name: str) -> Tokens:
        """The task's part of the test split."""
        part: Tokens = self.test[tasks_of(self.test) == [*self.tasks].index(name)]
        return part


def load_tokens(
    spec: TokenSource,
    cache_dir: Path | None = None,
    tell: Tell = silent,
    like: TokenSource | None = None,
) -> TokenSplits:
    """The corpus as tokens, from the cache or made now. Safe to call from many processes at once.
    `tell` counts the documents that are done while it is made. A BPE is that of the corpus `like`,
    where one is given.

    Raises DataError where the text or a package is missing, or the cache cannot be written.
    """
    learned = None
    if like is not None and like.tokenizer == "bpe":
        load_tokens(like, cache_dir, tell)
        learned = (cache_dir or cache_folder()) / "tokens" / _key(like)
    folder = (cache_dir or cache_folder()) / "tokens" / _key(spec, learned)
    if not folder.is_dir():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with locked(folder.with_suffix(".lock")):
                if not folder.is_dir():
                    _make(spec, folder, tell, learned)
        except OSError as error:
            raise DataError(
                f"cannot write the token cache {folder}: {error.strerror or error}; "
                "set PRIMEVO_CACHE to a folder with room"
            ) from error
    return _open(folder)


def too_short(tokens: TokenSplits, window: int) -> str:
    """Why no window of so many tokens can be taken from one of the splits, and what to do; empty
    where there are enough. A window is a sequence with its targets: one token longer, for the next
    token; objectives that look at consecutive sequences need them in a row."""
    sizes = {split: len(getattr(tokens, split)) for split in SPLITS}
    split = min(SPLITS, key=sizes.__getitem__)
    if sizes[split] >= window:
        return ""
    return (
        f"the {split} split has {sizes[split]} tokens, and a sequence with its targets needs "
        f"{window}: lower task.model.sequence_length, or give task.data more text"
    )


def _key(spec: TokenSource, learned: Path | None = None) -> str:
    """Names the content: whatever changes the tokens changes the key, and nothing else does.
    `learned` is the folder of the corpus that the tokenizer was trained on, if it is another."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "source": spec.source,
        "corpus": _fingerprint(spec),
        "max_documents": spec.max_documents,
        "tokenizer": spec.tokenizer,
        "vocabulary": spec.vocabulary if spec.tokenizer == "bpe" else 256,
    }
    if spec.options:
        content["options"] = dict(spec.options)
    if learned is not None:
        content["learned"] = learned.name
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    return f"{'sources' if spec.sources else spec.source}-{spec.tokenizer}-{digest}"


def _fingerprint(spec: TokenSource) -> dict[str, Any]:
    if not spec.sources:
        return fingerprint(spec)
    return {
        name: [part.source, fingerprint(part), part.max_documents, dict(part.options)]
        for name, part in parts(spec).items()
    }


def _open(folder: Path) -> TokenSplits:
    try:
        meta = json.loads((folder / "meta.json").read_text())
        arrays = {
            split: np.load(folder / f"{split}.npy", mmap_mode="r", allow_pickle=False)
            for split in SPLITS
        }
        vocabulary, lengths = meta["vocabulary"], dict(meta["bytes_per_token"])
        tasks = dict(meta.get("tasks", {}))
        _check_content(arrays, vocabulary, lengths, tasks)
    except Exception as error:  # of damaged files, numpy makes any kind
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(
            f"the token cache {folder} is damaged ({reason}): delete it, and it is made again"
        ) from error
    return TokenSplits(**arrays, vocabulary=vocabulary, bytes_per_token=lengths, tasks=tasks)


def _check_content(
    arrays: Mapping[Split, Any], vocabulary: object, lengths: Mapping[str, object],
    tasks: Mapping[str, object],
) -> None:  # fmt: skip
    """A ValueError where a cache holds something else than `_write` puts there. The tokens
    themselves are not read."""
    if type(vocabulary) is not int or not 1 <= vocabulary <= 1 << 16:
        raise ValueError(f"meta.json says the vocabulary {vocabulary!r}")
    wanted = {np.uint32} if tasks else {np.uint8 if vocabulary <= 256 else np.uint16, np.uint16}
    for split in SPLITS:
        array = arrays[split]
        if array.ndim != 1 or array.dtype.type not in wanted:
            raise ValueError(f"{split}.npy holds {array.dtype} of shape {array.shape}")
    for name, length in [*((split, lengths[split]) for split in SPLITS), *tasks.items()]:
        if type(length) not in (int, float) or not length > 0:  # type: ignore[operator]
            raise ValueError(f"meta.json says {length!r} bytes per token of {name}")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock on the file, so that what many processes need is made once."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _make(spec: TokenSource, folder: Path, tell: Tell, learned: Path | None) -> None:
    """Writes the folder's content beside it and gives it its name when all is there. Only one
    process does at a time, so a draft that lies there is of one that was killed."""
    draft = folder.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        encoder = _bytes() if spec.tokenizer == "bytes" else _bpe(spec, draft, learned)
        meta = _write(encoder, split_corpus(spec), draft, tell)
        (draft / "meta.json").write_text(json.dumps(meta, indent=1))
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Encoder:
    """`encode` gives each document's tokens, with the separator after them."""

    vocabulary: int
    dtype: type[np.generic]
    encode: Callable[[Sequence[str]], list[Tokens]]


def _bytes() -> _Encoder:
    def encode(texts: Sequence[str]) -> list[Tokens]:
        return [np.frombuffer(text.encode() + b"\0", np.uint8) for text in texts]

    return _Encoder(256, np.uint8, encode)


def _bpe(spec: TokenSource, folder: Path, learned: Path | None) -> _Encoder:
    """Trains the tokenizer, unless another corpus has, and leaves it in the folder as
    `tokenizer.json`."""
    try:
        import tokenizers
    except ImportError:
        raise DataError(
            "data.tokenizer 'bpe' needs the package 'tokenizers': pip install 'primevo[bpe]'"
        ) from None
    if learned is not None:
        tokenizer = tokenizers.Tokenizer.from_file(str(learned / "tokenizer.json"))
    else:
        tokenizer = _trained_bpe(spec)
    tokenizer.save(str(folder / "tokenizer.json"))

    def encode(texts: Sequence[str]) -> list[Tokens]:
        encoded = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array([*one.ids, 0], np.uint16) for one in encoded]

    return _Encoder(tokenizer.get_vocab_size(), np.uint16, encode)


def _trained_bpe(spec: TokenSource) -> Any:
    import tokenizers

    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=spec.vocabulary,
        special_tokens=[SEPARATOR],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sample(spec), trainer)
    return tokenizer


def _sample(spec: TokenSource) -> Iterator[str]:
    """The train split's first documents, up to BPE_SAMPLE characters, equally many of each named
    source."""
    sources = parts(spec).values()
    for part in sources:
        size = 0
        for split, document in split_documents(documents(part)):
            if split == "train":
                yield document.text
                size += len(document.text)
            if size >= BPE_SAMPLE / len(sources):
                break


def _write(
    encoder: _Encoder, texts: Iterable[tuple[Split, Document]], folder: Path, tell: Tell
) -> dict[str, Any]:
    """Streams the texts into one array file a split and returns what `meta.json` says."""
    stream, done = iter(texts), 0
    first = next(stream)
    stream = itertools.chain([first], stream)
    tasks = _Tasks(bool(first[1].task))
    dtype = np.uint32 if tasks.known else encoder.dtype
    with ExitStack() as stack:
        arrays = {
            split: stack.enter_context(_ArrayFile(folder / f"{split}.npy", dtype))
            for split in SPLITS
        }
        size = dict.fromkeys(SPLITS, 0)
        while batch := list(itertools.islice(stream, BATCH)):
            encoded = encoder.encode([document.text for _, document in batch])
            for (split, document), tokens in zip(batch, encoded, strict=True):
                length = len(document.text.encode()) + 1
                arrays[split].append(tasks.marked(tokens, document, split, length))
                size[split] += length
            done += len(batch)
            tell(done, 0)
    return {
        "vocabulary": encoder.vocabulary,
        "bytes_per_token": {split: size[split] / arrays[split].length for split in SPLITS},
        **({"tasks": tasks.bytes_per_token} if tasks.known else {}),
    }


class _Tasks:
    """The tasks of a corpus, numbered in the order in which their documents come, or none."""

    def __init__(self, known: bool) -> None:
        self.known = known
        self._numbers: dict[str, int] = {}
        self._bytes: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()

    def marked(self, tokens: Tokens, document: Document, split: Split, length: int) -> Tokens:
        """The tokens of a document of so many bytes with its task. DataError where some documents
        have one and others none, or where there are too many."""
        name = document.task
        if bool(name) != self.known:
            raise DataError(
                f"document '{document.name}' has {f'the task {name!r}' if name else 'no task'}, "
                f"and those before it have {'tasks' if self.known else 'none'}: a corpus files all "
                "of its documents under tasks, or none"
            )
        if not name:
            return tokens
        number = self._numbers.setdefault(name, len(self._numbers))
        if number >= MOST_TASKS:
            raise DataError(f"the corpus has more than {MOST_TASKS} tasks, the last '{name}'")
        if split == "test":
            self._bytes[name] += length
            self._tokens[name] += len(tokens)
        return tokens.astype(np.uint32) + np.uint32(number * SPAN)

    @property
    def bytes_per_token(self) -> dict[str, float]:
        """Of the test split, by task; 1 for those that have no part in it."""
        return {
            name: self._bytes[name] / self._tokens[name] if self._tokens[name] else 1.0
            for name in self._numbers
        }


class _ArrayFile:
    """A `.npy` file of one dimension, written in pieces. Its header is padded (numpy leaves room
    for any length), so it can be written again over itself once the length is known."""

    def __init__(self, path: Path, dtype: type[np.generic]) -> None:
        self.length = 0
        self._dtype = np.dtype(dtype)
        self._file = path.open("wb")

    def __enter__(self) -> Self:
        self._write_header()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def append(self, tokens: Tokens) -> None:
        self._file.write(tokens.tobytes())
        self.length += len(tokens)

    def _write_header(self) -> None:
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self.length,)}
        np.lib.format.write_array_header_1_0(self._file, header)
