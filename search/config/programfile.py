"""Programs that a person names: a seed program, or a file of program text."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from primitives.errors import ProgramError, unknown
from primitives.graph.build import Graph, IllTyped, build
from primitives.language.dna import DNA, MIDDLE
from primitives.language.jsonform import from_json
from primitives.language.text import parse, render
from primitives.programs.seeds import load_seed, seed_names
from search.config.textfile import read_text
from search.errors import NotFoundError, UsageError
from workers.spec.fit import task_graph
from workers.spec.task import Task

CANDIDATE = "campaign:"
"""With it a config's seed program begins that is a candidate in the database."""


def load_program(name: str, d_model: int, base: Path = Path()) -> tuple[str, DNA]:
    """A seed program by name, the program in a file (relative to `base`), or a program's text of
    several lines, type-checked. The folder of an export stands for its card.

    Constants are resolved for a model of `d_model` channels. Returns the name, the file's absolute
    path, or the text, with the program, or raises a UsageError.
    """
    if name in seed_names():
        return name, load_seed(name, d_model)
    if "\n" in name:
        return name, _from_text(name, d_model)
    if name.startswith(CANDIDATE):
        raise UsageError(f"{name[:120]}: no database was asked for this candidate")
    try:
        path = (base / name).resolve()
        if (path / "card.json").is_file():
            path /= "card.json"
        missing = not path.exists()
    except (OSError, ValueError) as error:  # too long, or with characters that no path has
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{name[:80]!r} cannot be a path: {reason}") from None
    if missing and Path(name).name == name and not path.suffix:
        raise UsageError(f"{unknown('seed program', name, seed_names())}; nor is it a file")
    return str(path), read_program(path, d_model)


def stored_program(name: str, d_model: int, base: Path = Path()) -> str:
    """What a config keeps of a program that `load_program` takes: the name of a seed program, or a
    text of several lines, which for a file begins with a comment that names it."""
    name, dna = load_program(name, d_model, base)
    if name in seed_names() or "\n" in name:
        return name
    path = Path(name)
    text = render(dna) if path.suffix == ".json" else read_text(path, "program")
    return f"# {path.name}\n\n{text}"


def title_of(name: str) -> str:
    """What messages call a program that `load_program` takes: a text by the comment that it begins
    with."""
    return (headline(name)[:120] or "a program's text") if "\n" in name else name


def _from_text(text: str, d_model: int) -> DNA:
    title = title_of(text)
    try:
        dna = parse(text, title, d_model)
    except ProgramError as error:
        raise UsageError(str(error)) from None
    checked(dna, title)
    return dna


def load_seed_program(name: str, d_model: int) -> DNA:
    """A seed program by name, for a width; a NotFoundError with the nearest one."""
    try:
        return load_seed(name, d_model)
    except ProgramError as error:
        raise NotFoundError(str(error)) from None


def read_program(path: Path, d_model: int) -> DNA:
    """The program in a file, parsed for a width and type-checked, or a UsageError."""
    text = read_text(path, "program")
    try:
        if path.suffix == ".json":
            dna = _from_document(json.loads(text), path, d_model)
        else:
            dna = parse(text, str(path), d_model)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    except ProgramError as error:
        message = str(error)
        raise UsageError(message if str(path) in message else f"{path}: {message}") from None
    except (ValueError, RecursionError) as error:  # a number too long, lists too deep
        raise UsageError(f"{path}: not a program in JSON form: {error}") from None
    checked(dna, str(path))
    return dna


def _from_document(document: Any, path: Path, d_model: int) -> DNA:
    """A program in JSON form, or the one that an export's card holds as `dna` or as `text`."""
    if isinstance(document, dict) and "subroutines" not in document:
        if "dna" in document:
            return from_json(document["dna"])
        if isinstance(document.get("text"), str):
            return parse(document["text"], str(path), d_model)
    return from_json(document)


def spaced(dna: DNA, every: int | str) -> DNA:
    """A routed program in the blocks that a config says; any other as it is."""
    if not dna.counts or dna.every != 1:
        return dna
    return replace(dna, every=MIDDLE if every == "middle" else int(every))


def checked(dna: DNA, source: str, task: Task | None = None) -> Graph:
    """The canonical graph of a program, or a UsageError with the reason that it has no type: in the
    task, or, where none is given, in any."""
    graph = build(dna, bidirectional=True) if task is None else task_graph(dna, task)
    if isinstance(graph, IllTyped):
        raise UsageError(f"{source}: {graph.where}: {graph.reason}")
    return graph


def headline(text: str) -> str:
    """The comment that a program's text begins with, on one line."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.removeprefix("#").strip() for line in lines)


def first_sentence(text: str) -> str:
    """Up to the first full stop before a capital; "et al. 2021" ends nothing."""
    return re.split(r"(?<=\.)\s+(?=[A-Z])", text, maxsplit=1)[0]
