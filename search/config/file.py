"""A campaign's config as a file: a checked `CampaignConfig`, or every problem in one message.

A problem names file, line and key path, what stands there, what may stand there, and the nearest
match. Relative paths inside a file count from that file's folder, those of --set from the current
one; in the result they are absolute, so that a campaign resumes from anywhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from primitives.errors import unknown
from primitives.language.dna import EVERY
from primitives.lowering.cost import program_layers
from primitives.programs.seeds import DEFAULT_WIDTH
from search.config.document import Document, Keys, dotted, of_data, read, shown
from search.config.plugins import load_plugins
from search.config.programfile import CANDIDATE, checked, load_program, spaced, title_of
from search.config.schema import CampaignConfig
from search.config.verdict import verdict
from search.errors import ConfigError, PrimevoError, UsageError
from workers.data.corpora import CORPORA, DataError
from workers.spec.task import DataSpec, Task

Find = Callable[[str, str | None], str]
"""The text of a candidate that is named as `campaign:NAME/ID`, given the config's `storage`; a
PrimevoError where there is none."""


def load(path: Path, overrides: Sequence[str] = (), find: Find | None = None) -> CampaignConfig:
    """The config in a YAML file with `--set key=value` laid over it, or a ConfigError. Candidates
    among the seed programs become their text by `find`; without it they stay names."""
    return _config(read(path, overrides), str(path), find)


def from_data(
    data: Mapping[str, object], source: str = "the config", find: Find | None = None
) -> CampaignConfig:
    """The config in plain data, keys as in a file, or a ConfigError."""
    return _config(of_data(data, source), source, find)


def _config(document: Document, source: str, find: Find | None) -> CampaignConfig:
    config = None
    if _load_plugins(document):  # without their rows, the rest cannot be judged
        _check_programs(document, find)
        _check_data(document)
        config = _validated(document)
    if config is None or document.problems:
        raise ConfigError(source, sorted(document.problems, key=lambda problem: problem.line))
    return config


def task_of(path: Path | None) -> Task:
    """The task of a config file, or the default one."""
    return Task() if path is None else load(path).task


def _validated(document: Document) -> CampaignConfig | None:
    """The config, or what can be made of it; its problems and, as far as nothing that is wrong
    decides them, those of its seed programs in the task are noted."""
    judged = verdict(document.data)
    known = {problem.key for problem in document.problems}
    for keys, details in judged.problems:
        key = dotted(keys)
        if key not in known and not any(other.startswith(f"{key}[") for other in known):
            document.add(keys, _wording(details, keys))
    if judged.config is not None and judged.untouched(*_DECIDE_FIT):
        _check_fit(document, judged.config)
    return judged.config


def _wording(details: ErrorDetails, keys: Keys) -> str:
    kind, found = details["type"], details["input"]
    text = details["msg"].removeprefix("Value error, ")
    if kind == "missing":
        return f"missing{_meaning(keys)}"
    if kind == "extra_forbidden":
        return unknown("key", str(keys[-1]), _fields(keys[:-1]))
    if kind == "literal_error":
        allowed = details["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        return unknown("value", found if isinstance(found, str) else shown(found), allowed)
    if kind in ("value_error", "clash"):
        return text
    if kind == "model_type":
        return f"should be a mapping of {', '.join(_fields(keys))}; found {shown(found)}"
    text = text.replace("Input should", "should").replace("array", "list")
    return f"{text}; found {shown(found)}{_meaning(keys)}"


def _fields(keys: Keys) -> dict[str, FieldInfo]:
    """The fields of the model at a key path; empty where none stands there."""
    model: Any = CampaignConfig
    for key in keys:
        known = model.model_fields if _is_model(model) else {}
        model = known[key].annotation if key in known else None
    return dict(model.model_fields) if _is_model(model) else {}


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _meaning(keys: Keys) -> str:
    info = _fields(keys[:-1]).get(str(keys[-1])) if keys else None
    return f" ({keys[-1]}: {info.description})" if info and info.description else ""


def _at(document: Document, *keys: str) -> Any:
    """The raw value at a key path, None where it is missing."""
    value = document.data
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _texts(value: Any) -> Iterable[tuple[int, str]]:
    items = value if isinstance(value, list) else []
    return [(index, item) for index, item in enumerate(items) if isinstance(item, str)]


def _load_plugins(document: Document) -> bool:
    """Puts the rows of the config's plug-ins into the tables, which all later checks read. False
    where one cannot be loaded."""
    loaded = True
    for index, name in _texts(_at(document, "plugins")):
        try:
            load_plugins([name])
        except UsageError as error:
            document.add(("plugins", index), str(error))
            loaded = False
    return loaded


def _check_programs(document: Document, find: Find | None) -> None:
    """Each seed is the name of a seed program, or a file or a candidate that parses and
    type-checks."""
    seeds: Any = _at(document, "search", "seeds")
    width = _at(document, "task", "model", "d_model")
    d_model = width if type(width) is int and width > 0 else DEFAULT_WIDTH
    for index, name in _texts(seeds):
        keys = ("search", "seeds", index)
        try:
            if name.startswith(CANDIDATE):
                if find is None:
                    continue
                storage = _at(document, "storage")
                name = find(name, storage if isinstance(storage, str) else None)
            seeds[index], _ = load_program(name, d_model, document.base(keys))
        except PrimevoError as error:
            document.add(keys, str(error))


_DECIDE_FIT: tuple[Keys, ...] = (
    ("task", "model"), ("task", "training", "objective"), ("search", "every"),
)  # fmt: skip


def _check_fit(document: Document, config: CampaignConfig) -> None:
    """The task can have each seed program: it has a type under the task's objective, and at least
    one block of the model runs it."""
    layers = config.task.model.layers
    wrong = {problem.key for problem in document.problems}
    named = _texts(_at(document, "search", "seeds")) or enumerate(config.search.seeds)
    for index, name in named:
        if f"search.seeds[{index}]" in wrong or name.startswith(CANDIDATE):
            continue
        own = load_program(name, config.task.model.d_model)[1]
        name = title_of(name)
        try:
            checked(own, name, config.task)
        except UsageError as error:
            objective = config.task.training.objective
            fix = f"task.training.objective is {objective}; leave the program out, or change that"
            document.add(("search", "seeds", index), f"{error} ({fix})")
            continue
        every = spaced(own, config.search.every).every
        if not program_layers(every, layers):
            most = max(each for each in EVERY if each <= layers)
            told = f"'{name}' says every {every}" if own.every == every else f"every is {every}"
            document.add(
                ("search", "seeds", index) if own.every == every else ("search", "every"),
                f"no block would run the seed program '{name}': {told}, and task.model.layers is "
                f"{layers}; set task.model.layers to {every} or more, or every to {most}",
            )


def _check_data(document: Document) -> None:
    """The text is there, and what reads it is installed; cheap, nothing is read."""
    data: Any = _at(document, "task", "data")
    if not isinstance(data, dict):
        return
    files: Any = data.get("files")
    for index, pattern in _texts(files):
        folder = document.base(("task", "data", "files", index)).resolve()
        files[index] = str(folder / os.path.expanduser(pattern))
    if data.get("tokenizer") == "bpe" and find_spec("tokenizers") is None:
        text = "bpe needs the package tokenizers: pip install 'primevo[bpe]'"
        document.add(("task", "data", "tokenizer"), text)
    with suppress(ValidationError):  # told by `_validated`, with its place
        _check_text(document, DataSpec.model_validate_json(json.dumps(data)))


def _check_text(document: Document, spec: DataSpec) -> None:
    row = CORPORA[spec.source]
    if row.lacks:
        document.add(("task", "data", "source"), row.lacks)
        return
    try:
        row.fingerprint(spec)
    except DataError as error:
        document.add(("task", "data", row.key), str(error))
