"""Token arrays: content, cache, concurrency."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from workers.data.corpora import CORPORA, DataError, documents
from workers.data.splits import split_documents
from workers.data.tokens import TokenSplits, _key, load_tokens, too_short
from workers.machine.caches import cache_folder
from workers.spec.task import DataSpec

SPLITS = ("train", "validation", "test")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve files of words, some of them not ASCII."""
    for index in range(12):
        words = ("the house", "a café", f"number {index}", "die Straße")
        (tmp_path / f"{index}.txt").write_text(" and ".join(words * (20 + index)))
    return tmp_path


def spec_of(folder: Path, **fields: object) -> DataSpec:
    return DataSpec(source="text", files=(str(folder / "*.txt"),), **fields)


def texts(spec: DataSpec, wanted: str) -> list[str]:
    found = split_documents(documents(spec))
    return [document.text for split, document in found if split == wanted]


def test_sotu_bytes_take_seconds_at_most(tmp_path: Path) -> None:
    start = time.perf_counter()
    tokens = load_tokens(DataSpec(), tmp_path)
    assert time.perf_counter() - start < 5
    assert tokens.vocabulary == 256
    assert len(tokens.train) > 20 * len(tokens.validation) > 0
    assert tokens.bytes_per_token == dict.fromkeys(SPLITS, 1.0)


def test_bytes_are_the_text_with_zeros_between(folder: Path) -> None:
    spec = spec_of(folder)
    tokens = load_tokens(spec, folder / "cache")
    for split in SPLITS:
        array = getattr(tokens, split)
        assert array.dtype == np.uint8
        assert array.tobytes() == b"".join(t.encode() + b"\0" for t in texts(spec, split))


def test_arrays_are_mapped_and_read_only(folder: Path) -> None:
    tokens = load_tokens(spec_of(folder), folder / "cache")
    assert isinstance(tokens.train, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        tokens.train[0] = 1


def test_bpe_learns_from_train_only_and_loses_nothing(folder: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    spec = spec_of(folder, tokenizer="bpe", vocabulary=300)
    held_out = texts(spec, "validation")[0]
    tokens = load_tokens(spec, folder / "cache")
    [saved] = (folder / "cache" / "tokens").glob("*/tokenizer.json")
    tokenizer = tokenizers.Tokenizer.from_file(str(saved))
    assert tokens.vocabulary == tokenizer.get_vocab_size() <= 300
    assert tokens.train.dtype == np.uint16
    for split in SPLITS:
        array = getattr(tokens, split)
        parts = np.split(array, np.flatnonzero(array == 0) + 1)[:-1]
        assert [tokenizer.decode(part[:-1]) for part in parts] == texts(spec, split)
        size = sum(len(text.encode()) + 1 for text in texts(spec, split))
        assert tokens.bytes_per_token[split] == pytest.approx(size / len(array))
    assert tokens.bytes_per_token["train"] > 1.5

    for path in folder.glob("*.txt"):  # a word that only held-out text has is never merged
        if path.read_text() == held_out:
            path.write_text("zyzzyva " * 500)
    spec = spec_of(folder, tokenizer="bpe", vocabulary=301)
    load_tokens(spec, folder / "cache2")
    [saved] = (folder / "cache2" / "tokens").glob("*/tokenizer.json")
    vocabulary = json.loads(saved.read_text())["model"]["vocab"]
    assert not any("zy" in token for token in vocabulary)


def test_second_use_reads_the_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_tokens(spec_of(folder), folder / "cache")
    monkeypatch.setattr("workers.data.tokens.documents", None)
    second = load_tokens(spec_of(folder), folder / "cache")
    assert np.array_equal(first.train, second.train)


def test_what_changes_the_tokens_changes_the_key(folder: Path) -> None:
    cache = folder / "cache"

    def count(spec: DataSpec) -> int:
        load_tokens(spec, cache)
        return sum(path.is_dir() for path in (cache / "tokens").iterdir())

    assert count(spec_of(folder)) == 1
    assert count(spec_of(folder, vocabulary=999)) == 1  # bytes have no vocabulary to choose
    assert count(spec_of(folder, max_documents=5)) == 2
    (folder / "3.txt").write_text("something else")
    assert count(spec_of(folder)) == 3


@pytest.mark.parametrize(
    ("fields", "folder_name"),
    [
        ({}, "sotu-bytes-bc34f1dde21ba494"),
        ({"max_documents": 40}, "sotu-bytes-0ec6e593a27f315f"),
        ({"tokenizer": "bpe", "vocabulary": 300}, "sotu-bpe-b43581a83f3f15ca"),
        ({"source": "tfds"}, "tfds-bytes-2483cdbc9ae326d3"),
        ({"source": "tfds", "name": "wiki", "tokenizer": "bpe"}, "tfds-bpe-96fc2c3b81c00ad5"),
    ],
)
def test_caches_of_the_first_release_are_still_found(
    fields: dict[str, object], folder_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names are those that the first release gave, with every package at version 1.2.3."""
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.2.3")
    assert _key(DataSpec(**fields)) == folder_name


def test_the_cache_of_text_files_is_still_found(folder: Path) -> None:
    files = sorted(folder.glob("*.txt"))
    found = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    content = {
        "format": 1, "source": "text", "corpus": {"files": found}, "max_documents": None,
        "tokenizer": "bytes", "vocabulary": 256,
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    assert _key(spec_of(folder)) == f"text-bytes-{digest}"


def test_options_of_a_corpus_are_part_of_the_key(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = replace(CORPORA["text"], name="again", options=("upper", "lower"))
    monkeypatch.setitem(CORPORA, "again", row)
    plain = {"source": "again", "files": (str(folder / "*.txt"),)}
    keys = {
        _key(DataSpec(**plain, options=options))
        for options in ({}, {"upper": True}, {"upper": False}, {"lower": True})
    }
    assert len(keys) == 4


def test_processes_that_start_together_agree(folder: Path) -> None:
    script = (
        "import sys; from workers.spec.task import DataSpec;"
        "from workers.data.tokens import load_tokens;"
        f"tokens = load_tokens(DataSpec(source='text', files=({str(folder / '*.txt')!r},)));"
        "print(len(tokens.train), int(tokens.train.sum()))"
    )
    environment = os.environ | {"PRIMEVO_CACHE": str(folder / "cache")}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", script], env=environment, text=True, stdout=subprocess.PIPE
        )
        for _ in range(3)
    ]
    answers = {run.communicate()[0] for run in runs}
    assert len(answers) == 1
    assert answers != {""}
    left = sorted(path.suffix for path in (folder / "cache" / "tokens").iterdir())
    assert left == ["", ".lock"]  # one folder, no drafts


def test_a_killed_first_use_leaves_nothing_behind(folder: Path) -> None:
    script = (
        "import os; from pathlib import Path; from workers.data import tokens;"
        "from workers.spec.task import DataSpec;"
        "tokens._write = lambda *given: os.kill(os.getpid(), 9);"
        f"tokens.load_tokens(DataSpec(source='text', files=({str(folder / '*.txt')!r},)),"
        f" Path({str(folder / 'cache')!r}))"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    cache = folder / "cache" / "tokens"
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1, "the draft that is left"
    load_tokens(spec_of(folder), folder / "cache")
    assert sorted(path.suffix for path in cache.iterdir()) == ["", ".lock"]


def test_a_failed_first_use_leaves_nothing_behind(folder: Path) -> None:
    (folder / "7.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"7\.txt is not UTF-8"):
        load_tokens(spec_of(folder), folder / "cache")
    assert not [path for path in (folder / "cache" / "tokens").iterdir() if path.is_dir()]


def test_cache_that_cannot_be_written_is_named(folder: Path) -> None:
    (folder / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"cannot write .*cache.* PRIMEVO_CACHE"):
        load_tokens(spec_of(folder), folder / "cache")


def test_damaged_cache_is_named(folder: Path) -> None:
    load_tokens(spec_of(folder), folder / "cache")
    [damaged] = (folder / "cache" / "tokens").glob("*/train.npy")
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(DataError, match=r"damaged .* delete it"):
        load_tokens(spec_of(folder), folder / "cache")


def test_bpe_without_its_package_names_the_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(DataError, match=r"primevo\[bpe\]"):
        load_tokens(spec_of(folder, tokenizer="bpe"), folder / "cache")


def test_tfds_becomes_tokens(tmp_path: Path) -> None:
    tfds = pytest.importorskip("tensorflow_datasets")
    with tfds.testing.mock_data(num_examples=30):
        tokens = load_tokens(DataSpec(source="tfds", name="lm1b"), tmp_path)
    assert min(len(tokens.train), len(tokens.validation), len(tokens.test)) > 0
    separators = sum(np.count_nonzero(getattr(tokens, split) == 0) for split in SPLITS)
    assert separators == 30


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"PRIMEVO_CACHE": "/some/where"}, "/some/where"),
        ({"XDG_CACHE_HOME": "/cache"}, "/cache/primevo"),
        ({"HOME": "/home/ada"}, "/home/ada/.cache/primevo"),
    ],
)
@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has a folder of its own")
def test_cache_folder(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PRIMEVO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


def test_a_split_that_is_too_short_for_a_sequence_is_named() -> None:
    sizes = {"train": 100, "validation": 8, "test": 9}
    arrays = {split: np.zeros(size, np.uint8) for split, size in sizes.items()}
    splits = TokenSplits(**arrays, vocabulary=256, bytes_per_token={})
    assert too_short(splits, 8) == ""
    assert "the validation split has 8 tokens, and a sequence" in too_short(splits, 9)


DAMAGE = {
    "meta.json": (b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"vocabulary": 256}',
                  b'{"vocabulary": "256", "bytes_per_token": {}}',
                  b'{"vocabulary": 256, "bytes_per_token": {"train": 1, "validation": 1}}'),
    "train.npy": (b"", b"\x93NUMPY", b"PK\3\4", b"text", b"\x80\x04."),
}  # fmt: skip


@pytest.mark.parametrize(
    ("file", "content"), [(file, content) for file, many in DAMAGE.items() for content in many]
)
def test_a_damaged_cache_is_told(folder: Path, file: str, content: bytes) -> None:
    load_tokens(spec_of(folder), folder / "cache")
    [cached] = (folder / "cache" / "tokens").glob("*/meta.json")
    cached.with_name(file).write_bytes(content)
    with pytest.raises(DataError, match=r"the token cache .* is damaged .* delete it"):
        load_tokens(spec_of(folder), folder / "cache")


@pytest.mark.parametrize(
    ("vocabulary", "reason"),
    [
        (0, "says the vocabulary 0"),
        (65537, "says the vocabulary 65537"),
        (65536, "holds uint8"),
        ("256", "says the vocabulary '256'"),
        (None, "says the vocabulary None"),
        (1, None),
    ],
)
def test_a_cache_says_a_vocabulary_that_can_be(
    folder: Path, vocabulary: object, reason: str | None
) -> None:
    load_tokens(spec_of(folder), folder / "cache")
    [cached] = (folder / "cache" / "tokens").glob("*/meta.json")
    cached.write_text(json.dumps({**json.loads(cached.read_text()), "vocabulary": vocabulary}))
    if reason is None:
        assert load_tokens(spec_of(folder), folder / "cache").vocabulary == vocabulary
        return
    with pytest.raises(DataError, match=f"is damaged .*{reason}.* delete it"):
        load_tokens(spec_of(folder), folder / "cache")


def test_a_vocabulary_of_another_text_is_in_the_same_cache(tmp_path: Path, folder: Path) -> None:
    other, cache = tmp_path / "other", tmp_path / "cache"
    other.mkdir()
    for index in range(12):
        (other / f"{index}.txt").write_text("zyzzyva " * (50 + index))
    fields = {"tokenizer": "bpe", "vocabulary": 300}
    load_tokens(spec_of(other, **fields), cache, like=spec_of(folder, **fields))
    first, second = (path.read_text() for path in (cache / "tokens").glob("*/tokenizer.json"))
    assert first == second and "zyz" not in first


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 3), np.uint8),
        np.zeros(9, np.float32),
        np.zeros(9, np.int64),
        np.array("x"),
        np.array([{"a": 1}], object),
    ],
)
def test_arrays_that_are_no_tokens_are_refused(folder: Path, array: np.ndarray) -> None:
    """Pickled ones, too: nothing is unpickled."""
    load_tokens(spec_of(folder), folder / "cache")
    [cached] = (folder / "cache" / "tokens").glob("*/test.npy")
    np.save(cached, array, allow_pickle=True)
    with pytest.raises(DataError, match="is damaged"):
        load_tokens(spec_of(folder), folder / "cache")
