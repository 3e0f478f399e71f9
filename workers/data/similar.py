"""Stretches of text that are similar, by BM25 (Robertson and Zaragoza 2009): found once, and kept
beside the tokens.

A split is cut into segments; each segment that has no group yet takes the most similar ones that
have none either. Terms are tokens, or words where tokens are bytes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from primitives.kernels.tasks import ids_of
from workers.data.corpora import DataError
from workers.data.tokens import locked

Tokens = npt.NDArray[np.integer[Any]]
Starts = npt.NDArray[np.int64]

MOST_SEGMENTS = 1 << 16
"""Of a longer split so many segments are grouped, at even distances."""

COMMON = 0.1
"""Terms of more than this share of the segments say nothing of what they are about."""

_WORD = re.compile(rb"[A-Za-z0-9\x80-\xff]+")


def similar_segments(tokens: Tokens, length: int, size: int) -> Starts:
    """Where groups of `size` segments of `length` tokens begin, [groups, size]: in each group the
    first segment, and after it those most similar to it. Every group has one token after each
    segment. What a split in a file gives is kept beside the file.

    Raises DataError where BM25 is not installed, or the file cannot be written.
    """
    filename = getattr(tokens, "filename", None)
    if filename is None:
        return _grouped(tokens, length, size)
    source = Path(filename)
    file = source.with_name(f"{source.stem}-similar-{length}-{size}.npy")
    try:
        with locked(file.with_suffix(".lock")):
            if not file.is_file():
                draft = file.with_suffix(".draft.npy")
                np.save(draft, _grouped(tokens, length, size))
                draft.replace(file)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot keep groups of similar segments in {file}: {error}") from error
    return _open(file, len(tokens) - length, size)


def _open(file: Path, end: int, size: int) -> Starts:
    """The groups in a file, whose segments begin before `end`."""
    try:
        found: Starts = np.load(file, mmap_mode="r", allow_pickle=False)
        if found.ndim != 2 or found.shape[1] != size or found.dtype != np.int64:
            raise ValueError(f"it holds {found.dtype} of shape {found.shape}")
        if found.size and not (found.min() >= 0 and found.max() < end):
            raise ValueError(f"it names segments from {found.min()} to {found.max()}")
    except Exception as error:  # of damaged files, numpy makes any kind
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(
            f"the groups of similar segments in {file} are damaged ({reason}): delete the file, "
            "and it is made again"
        ) from error
    return found


def _grouped(tokens: Tokens, length: int, size: int) -> Starts:
    starts = np.arange(0, len(tokens) - length, length, dtype=np.int64)
    if len(starts) > MOST_SEGMENTS:
        starts = starts[np.linspace(0, len(starts) - 1, MOST_SEGMENTS).astype(np.int64)]
    terms = _terms([np.asarray(tokens[start : start + length]) for start in starts])
    index = _index(terms)
    free = np.ones(len(starts), bool)
    groups: list[list[int]] = []
    for segment in np.random.default_rng(0).permutation(len(starts)):
        if not free[segment]:
            continue
        free[segment] = False
        if np.count_nonzero(free) < size - 1:
            break
        scores = (
            index.get_scores_from_ids(terms[segment]) if terms[segment] else np.zeros(len(free))
        )
        nearest = _best(np.where(free, scores, -1.0), size - 1)
        free[nearest] = False
        groups.append([int(segment), *map(int, nearest)])
    return starts[np.array(groups, np.int64).reshape(-1, size)]


def _best(scores: npt.NDArray[Any], count: int) -> npt.NDArray[np.int64]:
    """The places of the `count` highest scores, the highest first."""
    if count == 0:
        return np.zeros(0, np.int64)
    best = np.argpartition(scores, -count)[-count:]
    return best[np.argsort(-scores[best], kind="stable")]


def _terms(segments: list[npt.NDArray[Any]]) -> list[list[int]]:
    """The terms of each segment as numbers, each once, without those that are common."""
    if segments and segments[0].dtype == np.uint32:  # they say of which task they are
        segments = [ids_of(segment) for segment in segments]
        if max(int(segment.max()) for segment in segments) < 256:
            segments = [segment.astype(np.uint8) for segment in segments]
    if segments and segments[0].dtype == np.uint8:
        numbers: dict[bytes, int] = {}
        words = [set(_WORD.findall(segment.tobytes())) for segment in segments]
        found = [[numbers.setdefault(word, len(numbers)) for word in sorted(own)] for own in words]
    else:
        found = [np.unique(segment).tolist() for segment in segments]
    flat = np.array([term for own in found for term in own], np.int64)
    common = np.bincount(flat, minlength=1) > max(1.0, COMMON * len(segments))
    return [[term for term in own if not common[term]] for own in found]


def _index(terms: list[list[int]]) -> Any:
    """A BM25 index over the segments."""
    try:
        import bm25s
    except ImportError:
        raise DataError(
            "the objective needs groups of similar text, and the package 'bm25s' is not installed: "
            "pip install 'primevo[memory]'"
        ) from None
    index, highest = bm25s.BM25(), max((max(own, default=0) for own in terms), default=0)
    index.index((terms, {str(term): term for term in range(highest + 1)}), show_progress=False)
    return index
