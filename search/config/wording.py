"""What pydantic finds wrong in a config, in the words of a message for a person."""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from primitives.errors import unknown
from search.config.document import Document, Keys, dotted, shown
from search.config.verdict import Verdict


def note(document: Document, judged: Verdict[Any], root: type[BaseModel]) -> None:
    """Adds the problems of a verdict on a config of the kind `root` to the document's, but for
    those of keys that have one already."""
    known = {problem.key for problem in document.problems}
    for keys, details in judged.problems:
        key = dotted(keys)
        if key not in known and not any(other.startswith(f"{key}[") for other in known):
            document.add(keys, _wording(details, keys, root))


def _wording(details: ErrorDetails, keys: Keys, root: type[BaseModel]) -> str:
    kind, found = details["type"], details["input"]
    text = details["msg"].removeprefix("Value error, ")
    if kind == "missing":
        return f"missing{_meaning(keys, root)}"
    if kind == "extra_forbidden":
        return unknown("key", str(keys[-1]), _fields(keys[:-1], root))
    if kind == "literal_error":
        allowed = details["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        return unknown("value", found if isinstance(found, str) else shown(found), allowed)
    if kind in ("value_error", "clash"):
        return text
    if kind == "model_type":
        return f"should be a mapping of {', '.join(_fields(keys, root))}; found {shown(found)}"
    text = text.replace("Input should", "should").replace("array", "list")
    return f"{text}; found {shown(found)}{_meaning(keys, root)}"


def _fields(keys: Keys, root: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of the model at a key path; empty where none stands there."""
    kind: Any = root
    for key in keys:
        model = _model(kind)
        if model is not None:
            info = model.model_fields.get(str(key))
            kind = info.annotation if info else None
        else:  # an item of a list or a mapping
            kind = next(reversed([each for each in get_args(kind) if each is not ...]), None)
    found = _model(kind)
    return dict(found.model_fields) if found else {}


def _model(kind: Any) -> type[BaseModel] | None:
    """The model that an annotation is, if it is one."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _meaning(keys: Keys, root: type[BaseModel]) -> str:
    info = _fields(keys[:-1], root).get(str(keys[-1])) if keys else None
    return f" ({keys[-1]}: {info.description})" if info and info.description else ""
