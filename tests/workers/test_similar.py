"""Segments of similar text: which come together, and the file that keeps them."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from workers.data import similar
from workers.data.corpora import DataError
from workers.data.similar import similar_segments


def test_similar_texts_come_together_and_each_once(tmp_path):
    """Segments about one of several things are grouped with others about it."""
    rng = np.random.default_rng(0)
    topics = rng.permutation(np.repeat(np.arange(10), 20))
    words = np.concatenate([topic * 50 + rng.integers(1, 50, 32) for topic in topics])
    text = np.concatenate([words, [0]]).astype(np.uint16)
    starts = similar_segments(text, 32, 4)
    assert starts.shape == (50, 4) and len(np.unique(starts)) == 200
    found = topics[starts // 32]
    assert (found[:, 1:] == found[:, :1]).mean() > 0.9


def test_words_of_bytes_are_grouped_once_and_kept_beside_the_tokens(tmp_path, monkeypatch):
    letters = [chr(97 + kind).encode() for kind in range(15)]
    text = b"".join(letters[i % 15] * 6 + b" " + letters[i % 15] * 3 + b". the " for i in range(60))
    path = tmp_path / "train.npy"
    np.save(path, np.frombuffer(text + b"\0", np.uint8))
    tokens = np.load(path, mmap_mode="r")
    starts = similar_segments(tokens, 16, 4)
    kinds = starts // 16 % 15
    assert (kinds == kinds[:, :1]).all()
    monkeypatch.setattr(similar, "_grouped", None)
    np.testing.assert_array_equal(similar_segments(tokens, 16, 4), starts)


@pytest.mark.parametrize(("count", "expected"), [(8, 2), (10, 2), (11, 2), (12, 3), (3, 0)])
def test_what_is_left_over_forms_no_group(count, expected):
    text = np.random.default_rng(0).integers(1, 50, 16 * count + 1).astype(np.uint16)
    starts = similar_segments(text, 16, 4)
    assert starts.shape == (expected, 4) and len(np.unique(starts)) == 4 * expected


@pytest.mark.parametrize(
    "content",
    [b"", b"\x93NUMPY", np.zeros((2, 2), np.int64), np.zeros(4, np.int64), np.zeros((2, 4)),
     np.full((2, 4), 900), np.full((2, 4), -1), np.array([[{}] * 4], object)],
)  # fmt: skip
def test_damaged_groups_of_similar_text_are_told(tmp_path, content):
    """Pickled ones, too: nothing is unpickled."""
    np.save(tmp_path / "train.npy", np.zeros(900, np.uint16))
    tokens = np.load(tmp_path / "train.npy", mmap_mode="r")
    if isinstance(content, bytes):
        (tmp_path / "train-similar-16-4.npy").write_bytes(content)
    else:
        np.save(tmp_path / "train-similar-16-4.npy", content, allow_pickle=True)
    with pytest.raises(DataError, match=r"train-similar-16-4.npy are damaged .*: delete the file"):
        similar_segments(tokens, 16, 4)


def test_where_bm25_is_missing_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(DataError, match="'bm25s' is not installed: pip install 'primevo"):
        similar_segments(np.arange(200, dtype=np.uint16), 10, 4)
