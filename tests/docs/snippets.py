"""The snippets of a page and what it takes to run them.

One rule for every Markdown page: a fence says its language, and

- `sh` is run line by line in a folder of the page's own, with the examples in `configs/`. Its
  campaigns have tiny budgets and, unless real workers are asked for, an instant evaluator, and
  `export` finds its program and writes nothing;
- `yaml` is a config, or a fragment of one, which is laid over a small config, or the config of a
  study; it is validated;
- `python` is run, all blocks of a page in one namespace;
- `dna` is parsed and type-checked;
- `toml` and `json` are parsed;
- what the page prints but nobody types is `text`, `diff` or `mermaid`.

`<!-- skip: next "reason" -->` before a block says why it cannot be run.
`<!-- excerpts: FOLDER -->` anywhere in a page says that its Python and TOML blocks stand word for
word in files of that folder, which tests of their own run; then they are compared.
`<!-- invisible-code-block: sh` holds what must have happened before.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import SkipTest

import yaml
from sybil import Document, Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, SkipParser

from primitives.graph.build import Graph, build
from primitives.language.text import parse
from search.config.file import load
from search.config.gridfile import load_study
from tests.cli.command import primevo

ROOT = Path(__file__).parent.parent.parent

OUTPUT = {"text", "diff", "mermaid"}

BASE: dict[str, Any] = {"search": {"candidates": 60, "budget": {"unit": "steps", "base": 50}}}
"""A fragment of a config is laid over this one."""

TRAINING = ("launch", "resume", "export", "evaluate")
"""Verbs that real workers make slow; a process of their own keeps Ray out of this one."""

BUDGET = ("search.budget.base=2",)
REAL = (
    *BUDGET, "search.candidates=4", "search.population=4", "search.tournament=2",
    "search.final.seeds=2", "task.data.max_documents=40", "workers.count=1",
)  # fmt: skip

_EXCERPTS = re.compile(r"<!-- excerpts: (\S+) -->")
_FENCE = re.compile(r"^```(\S*)", re.MULTILINE)
_SKIP = re.compile(r"<!--+ *skip: *(?P<what>\w+)(?P<rest>.*?)-->")


def pages() -> list[Path]:
    """Every Markdown page that people read, without those that are made from the code."""
    docs = ROOT / "docs"
    made = docs / "reference"
    found = [page for page in docs.rglob("*.md") if made not in page.parents]
    return [ROOT / "README.md", ROOT / ".github" / "CONTRIBUTING.md", *sorted(found)]


def problems(text: str) -> list[str]:
    """What keeps a page's snippets from being run without anybody being told."""
    fences = _FENCE.findall(text)[::2]
    known = {*OUTPUT, "sh", "yaml", "python", "dna", "toml", "json", "{toctree}"}
    found = [f"a fence says '{name}'" for name in fences if name not in known]
    for match in _SKIP.finditer(text):
        if match["what"] != "next" or len(match["rest"].strip(' "')) < 10:
            found.append(f"a skip without a reason, or of more than one block: {match[0]}")
    return found


def run(page: Path, real: bool = False) -> int:
    """Runs the page's snippets and returns how many were run."""
    done = 0
    for example in examples(page, real):
        with suppress(SkipTest):
            example.evaluate()
            done += isinstance(example.parsed, str)  # and no directive
    return done


def examples(page: Path, real: bool = False) -> Iterator[Example]:
    """The page's snippets in order; each `evaluate()` raises where one does not do as it says."""
    parsers = [
        SkipParser(),
        CodeBlockParser("sh", _real_shell if real else _shell),
        CodeBlockParser("yaml", _config),
        CodeBlockParser("python", _python),
        CodeBlockParser("dna", _program),
        CodeBlockParser("toml", _toml),
        CodeBlockParser("json", lambda example: json.loads(example.parsed) and None),
    ]
    document = Sybil(parsers, path=str(ROOT)).parse(page)
    document.namespace["__name__"] = "__snippet__"
    yield from document.examples()


def _shell(example: Example, sets: tuple[str, ...] = BUDGET, module: str = "instant") -> None:
    for line in example.parsed.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        words, file = (words[:-2], words[-1]) if words[-2:-1] == [">"] else (words, None)
        plain = words[0] == "primevo" and not set(words) & {"&&", "|", ">", "&", ";"}
        if not plain or (module != "instant" and words[1] in TRAINING):
            _bash(line, sets, module)
            continue
        printed = primevo(*_tiny(words[1:], sets)).stdout
        if file is not None:
            Path(file).write_text(printed)


def _real_shell(example: Example) -> None:
    _shell(example, REAL, "app")


def _tiny(arguments: list[str], sets: tuple[str, ...]) -> list[str]:
    """The arguments, with a tiny budget where they launch a campaign."""
    launched = arguments[:1] == ["launch"]
    return [*arguments, *(part for each in sets if launched for part in ("--set", each))]


def _bash(line: str, sets: tuple[str, ...], module: str) -> None:
    name = "tests.cli.instant" if module == "instant" else "search.cli"
    extra = shlex.join(_tiny(["launch"], sets)[1:])
    function = (
        f'primevo() {{ if [ "$1" = launch ]; then set -- "$@" {extra}; fi; '
        f'{shlex.quote(sys.executable)} -m {name} "$@"; }}'
    )
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{function}\n{line}"],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, f"{line}\n{run.stdout}{run.stderr}"


def _config(example: Example) -> None:
    """The config, or the fragment laid over BASE, has no problem."""
    given = yaml.safe_load(example.parsed)
    assert isinstance(given, dict), "a YAML block is a mapping of config keys"
    file = Path("snippet.yaml")
    if "programs" in given:
        file.write_text(example.parsed)
        load_study(file)
        return
    whole = "search" in given and {"candidates", "budget"} <= set(given["search"])
    file.write_text(example.parsed if whole else yaml.safe_dump(_laid_over(BASE, given)))
    load(file)


def _laid_over(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        key: _laid_over(base[key], value)
        for key, value in given.items()
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
    }
    return {**base, **given, **both}


def _python(example: Example) -> str | None:
    if _is_excerpt(example):
        return None
    made: str | None = PythonEvaluator()(example)
    return made


def _toml(example: Example) -> None:
    tomllib.loads(example.parsed)
    _is_excerpt(example)


def _is_excerpt(example: Example) -> bool:
    """Whether the page's blocks are from files; then this one must stand in one of them."""
    folder = excerpts_folder(example.document)
    if folder is None:
        return False
    sources = [path.read_text() for path in sorted(folder.rglob("*.*")) if path.suffix != ".pyc"]
    assert any(example.parsed.strip() in text for text in sources), "in no file of the example"
    return True


def excerpts_folder(document: Document) -> Path | None:
    match = _EXCERPTS.search(document.text)
    return ROOT / match[1] if match else None


def _program(example: Example) -> None:
    graph = build(parse(example.parsed, "a dna block", 64))
    assert isinstance(graph, Graph), str(graph)
