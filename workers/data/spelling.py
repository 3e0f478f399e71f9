"""Single tokens as text that a person can read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from workers.data.tokens import SEPARATOR, SEPARATOR_ID, TokenSource, TokenSplits

Spelling = Callable[[int], str]
"""A token's id -> its text."""


def spelling(spec: TokenSource, tokens: TokenSplits) -> Spelling:
    """How the tokens of a corpus are spelled: printable characters as they are, others escaped as
    in Python. An id beyond the vocabulary is one that the objective adds: `<hidden>`. Where a BPE's
    package is missing, ids stand for tokens."""
    text = _byte if spec.tokenizer == "bytes" else _bpe(tokens.train)

    def spelled(token: int) -> str:
        if token == SEPARATOR_ID:
            return SEPARATOR
        return printable(text(token)) if token < tokens.vocabulary else "<hidden>"

    return spelled


def printable(text: str) -> str:
    r"""The text with what cannot be printed, and backslashes, escaped.

    >>> printable("a\n\\")
    'a\\n\\\\'
    """
    return "".join(
        one if one.isprintable() and one != "\\" else one.encode("unicode_escape").decode("ascii")
        for one in text
    )


def _byte(token: int) -> str:
    return chr(token) if token < 128 else f"<{token:#x}>"


def _bpe(array: Any) -> Spelling:
    """By the tokenizer that lies beside a split's array."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return lambda token: f"#{token}"
    known = Tokenizer.from_file(str(Path(array.filename).with_name("tokenizer.json")))
    return lambda token: str(known.decode([token], skip_special_tokens=False))
