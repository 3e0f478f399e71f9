"""Passwords in database URLs: what is printed, stored or logged has `***` in their place."""

from __future__ import annotations

import re

_HIDDEN = "***"
_CREDENTIALS = re.compile(r"(://[^\s:/?#@]*):\S*@")
_PARAMETER = re.compile(r"([?&]\w*password=)[^&\s]*", re.IGNORECASE)


def without_passwords(text: str) -> str:
    """A text with the passwords of the URLs in it hidden.

    >>> without_passwords("storage postgresql://me:secret@host/database: no such host")
    'storage postgresql://me:***@host/database: no such host'
    """
    return _PARAMETER.sub(rf"\1{_HIDDEN}", _CREDENTIALS.sub(rf"\1:{_HIDDEN}@", text))


def shown(url: str) -> str:
    """A database URL as it may be shown, also one that is malformed: where what looks like a
    password cannot be told from the rest, more than the password is hidden."""
    scheme, found, rest = url.partition("://")
    if scheme.partition("+")[0] == "sqlite":
        return url
    if not found:
        return f"{_HIDDEN}@{url.rpartition('@')[2]}" if "@" in url else url
    credentials, found, place = rest.rpartition("@")
    user, colon, port = (credentials if found else rest).partition(":")
    if found:
        rest = f"{user}:{_HIDDEN}@{place}" if colon else rest
    elif colon and not re.match(r"\d*(/|\?|$)", port):
        rest = f"{user}:{_HIDDEN}"
    return _PARAMETER.sub(rf"\1{_HIDDEN}", f"{scheme}://{rest}")
