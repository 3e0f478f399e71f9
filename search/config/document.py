"""A YAML file as plain data that still knows which line each key path came from.

Only PyYAML's safe loader, and of it only the node tree: tags make no objects, a key that is written
twice is a problem. Scalars are read as YAML 1.2 does: `on` is a word and 1e-3 a number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from search.config.textfile import read_text
from search.errors import Problem, UsageError

Keys = tuple[str | int, ...]

MAX_VALUES = 100_000
"""Values in a config. Aliases let a file of a kilobyte stand for billions."""

MAX_DEPTH = 50
"""How deep mappings and lists may nest."""

_TAG = "tag:yaml.org,2002:"


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _kind, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9][0-9_]*", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?",
     list("-+.0123456789")),
):  # fmt: skip
    Loader.add_implicit_resolver(_TAG + _kind, re.compile(f"^(?:{_pattern})$"), _first)


@dataclass
class Document:
    """Plain data with the place that each key path came from."""

    data: Any = None
    places: dict[Keys, str] = field(default_factory=dict)
    bases: dict[Keys, Path] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place(self, keys: Keys) -> str:
        """The place of `keys`, or of the nearest key above it that stands in the file."""
        while keys and keys not in self.places:
            keys = keys[:-1]
        return self.places.get(keys, "")

    def base(self, keys: Keys) -> Path:
        """The folder that a relative path at `keys` counts from."""
        while keys and keys not in self.bases:
            keys = keys[:-1]
        return self.bases.get(keys, Path())

    def add(self, keys: Keys, text: str) -> None:
        self.problems.append(Problem(self.place(keys), dotted(keys), text))


def dotted(keys: Keys) -> str:
    """search.seeds[0], as messages write a key path."""
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


def read(path: Path, overrides: Sequence[str] = ()) -> Document:
    """The file's data with `--set key=value` laid over it; nothing is validated yet."""
    text = read_text(path, "config")
    document = Document()
    document.bases[()] = path.parent
    node = _compose(text, str(path))
    document.places[()] = f"{path}:1"
    document.data = _Reader(document, str(path)).value(node, ()) if node else {}
    if not isinstance(document.data, dict):
        raise UsageError(f"{path}:1: a config is a mapping of keys; found {shown(document.data)}")
    for override in overrides:
        _override(document, override)
    return document


def of_data(data: Mapping[str, object], source: str) -> Document:
    """Plain data, such as a program makes, as a document; nothing is validated yet. Relative paths
    in it count from the current folder. A UsageError where a value has no place in a config."""
    try:
        text = json.dumps(data, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{source}: not a config: {error}; give plain numbers and texts") from None
    return Document(json.loads(text), {(): source}, {(): Path()})


def shown(value: object) -> str:
    """A value as a message shows it: JSON, cut short."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _compose(text: str, source: str) -> yaml.Node | None:
    try:
        node: yaml.Node | None = yaml.compose(text, Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}" if mark and "--set" not in source else source
        raise UsageError(f"{where}: not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{source}: not YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise UsageError(f"{source}: not a config: nested too deeply") from None
    return node


def _override(document: Document, override: str) -> None:
    key, equals, text = override.partition("=")
    keys: Keys = tuple(key.strip().split("."))
    source = f"--set {override}"
    if not equals or not all(keys):
        raise UsageError(f"{source}: write --set key=value, e.g. --set search.candidates=50")
    if len(keys) > MAX_DEPTH:
        raise UsageError(f"--set {override[:40]}...: nested deeper than {MAX_DEPTH} levels")
    target = document.data
    for depth, part in enumerate(keys[:-1], 1):
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise UsageError(f"{source}: {dotted(keys[:depth])} is not a mapping")
    for old in [known for known in document.places if known[: len(keys)] == keys]:
        del document.places[old]
    document.bases[keys] = Path()
    document.places[keys] = source
    node = _compose(text, source)
    target[keys[-1]] = _Reader(document, source, lines=False).value(node, keys) if node else None


class _Reader:
    """YAML nodes to plain data, noting places and problems in the document."""

    def __init__(self, document: Document, source: str, lines: bool = True) -> None:
        self.document, self.source, self.lines = document, source, lines
        self.open: set[int] = set()
        self.values = 0

    def value(self, node: yaml.Node, keys: Keys) -> Any:
        self.values += 1
        if self.values > MAX_VALUES:
            raise UsageError(
                f"{self.source}: not a config: it holds more than {MAX_VALUES:,} values, those of "
                "its aliases counted each time; write fewer"
            )
        if len(self.open) > MAX_DEPTH:
            raise UsageError(f"{self.source}: not a config: nested deeper than {MAX_DEPTH} levels")
        self.document.places.setdefault(keys, self._place(node))
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, keys)
        if id(node) in self.open:
            self.document.add(keys, "an alias that contains itself")
            return None
        self.open.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            result: Any = [self.value(item, (*keys, i)) for i, item in enumerate(node.value)]
        else:
            result = dict(self._items(node, keys))
        self.open.discard(id(node))
        return result

    def _place(self, node: yaml.Node) -> str:
        return f"{self.source}:{node.start_mark.line + 1}" if self.lines else self.source

    def _items(self, node: yaml.Node, keys: Keys) -> Iterator[tuple[str, Any]]:
        seen: dict[str, str] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
            path = (*keys, key)
            if key in seen:
                problem = Problem(
                    self._place(key_node), dotted(path), f"written twice; first at {seen[key]}"
                )
                self.document.problems.append(problem)
                continue
            seen[key] = self._place(key_node)
            self.document.places[path] = seen[key]
            yield key, self.value(value_node, path)

    def _scalar(self, node: yaml.ScalarNode, keys: Keys) -> Any:
        kind, text = node.tag.removeprefix(_TAG), node.value
        if kind == "str":
            return text
        if kind == "null":
            return None
        if kind == "bool" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if kind in ("int", "float"):
            try:
                number = int(text) if kind == "int" else float(text)
                if isfinite(number):
                    return number
            except (ValueError, OverflowError):
                pass
            self.document.add(keys, f"not a number that can be used: {shown(text)}")
            return None
        self.document.add(keys, f"the tag {node.tag} is not allowed here")
        return None
