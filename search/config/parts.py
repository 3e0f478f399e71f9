"""What configs of all kinds have in common: plug-ins, and the text that they train on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

from pydantic import ValidationError

from search.config.document import Document, Keys
from search.config.plugins import load_plugins
from search.errors import UsageError
from workers.data.corpora import CORPORA, DataError
from workers.spec.task import DataSpec


def at(document: Document, *keys: str | int) -> Any:
    """The raw value at a key path, None where it is missing."""
    value = document.data
    for key in keys:
        if isinstance(key, int):
            value = value[key] if isinstance(value, list) and key < len(value) else None
        else:
            value = value.get(key) if isinstance(value, dict) else None
    return value


def texts(value: Any) -> Iterable[tuple[int, str]]:
    items = value if isinstance(value, list) else []
    return [(index, item) for index, item in enumerate(items) if isinstance(item, str)]


def load_rows(document: Document) -> bool:
    """Puts the rows of the config's plug-ins into the tables, which all later checks read. False
    where one cannot be loaded."""
    loaded = True
    for index, name in texts(at(document, "plugins")):
        try:
            load_plugins([name])
        except UsageError as error:
            document.add(("plugins", index), str(error))
            loaded = False
    return loaded


def check_data(document: Document, *place: str | int) -> None:
    """The text of `task.data`, or of another place, is there, and what reads it is installed. It is
    cheap: nothing is read."""
    keys: Keys = place or ("task", "data")
    data: Any = at(document, *keys)
    if not isinstance(data, dict):
        return
    resolve_files(document, data, keys)
    if data.get("tokenizer") == "bpe" and find_spec("tokenizers") is None:
        text = "bpe needs the package tokenizers: pip install 'primevo[bpe]'"
        document.add((*keys, "tokenizer"), text)
    with suppress(ValidationError):  # told by the verdict, with its place
        _check_text(document, DataSpec.model_validate_json(json.dumps(data)), keys)


def resolve_files(document: Document, data: dict[str, Any], keys: Keys) -> None:
    """Makes names of files absolute; a relative one is relative to its config."""
    files: Any = data.get("files")
    for index, pattern in texts(files):
        folder = document.base((*keys, "files", index)).resolve()
        files[index] = str(folder / os.path.expanduser(pattern))
    sources: Any = data.get("sources")
    for name, part in sources.items() if isinstance(sources, dict) else ():
        if isinstance(part, dict):
            resolve_files(document, part, (*keys, "sources", str(name)))


def _check_text(document: Document, spec: DataSpec, keys: Keys) -> None:
    for name, part in spec.sources.items():
        _check_text(document, part, (*keys, "sources", name))
    if spec.sources:
        return
    row = CORPORA[spec.source]
    if row.lacks:
        document.add((*keys, "source"), row.lacks)
        return
    try:
        row.fingerprint(spec)
    except DataError as error:
        document.add((*keys, row.key), str(error))
