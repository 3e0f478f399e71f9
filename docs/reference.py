"""The reference pages, made from the code whenever the documentation is built: the command line
from Typer, the Python face from its docstrings, the config's keys from the pydantic models, and
every table from its rows."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from annotated_types import BaseMetadata
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.cli import get_docs_for_click

import primevo
from primitives.ops.table import PRIMITIVES
from primitives.programs.seeds import seed_names, seed_text
from search.cli.app import app
from search.config.grid import ProgramSpec, StudyConfig
from search.config.programfile import headline
from search.config.schema import CampaignConfig
from search.evolution.mutation import DEFAULT_PROBABILITIES, MUTATIONS
from workers.data.corpora import CORPORA
from workers.machine.backends import BACKENDS
from workers.spec.metrics import METRICS
from workers.spec.objectives import OBJECTIVES


def pages() -> dict[str, str]:
    """Markdown by the name of its page."""
    return {
        "cli": cli(),
        "python": python(),
        "config": config(),
        "study": study(),
        "primitives": primitives(),
        "mutations": mutations(),
        "metrics": metrics(),
        "seed-programs": seed_programs(),
        "corpora-objectives-backends": choices(),
    }


def cli() -> str:
    """Every verb with its arguments and options."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="primevo")
    text = get_docs_for_click(obj=command, ctx=context, name="primevo", title="The command line")
    return text + "\n"


def python() -> str:
    """Every public name of `primevo` with its signature and docstring, a class with its members."""
    parts = ["# Python", "What `import primevo` gives."]
    for name in primevo.__all__:
        value = getattr(primevo, name)
        parts += [f"## {name}", _documented(f"primevo.{name}", value)]
        if inspect.isclass(value) and value.__module__.startswith("search.api"):
            for member, inner in vars(value).items():
                if not member.startswith("_") and inspect.getdoc(inner):
                    parts += [f"### {name}.{member}", _documented(f"{name}.{member}", inner)]
    return "\n\n".join(parts) + "\n"


def _documented(name: str, value: Any) -> str:
    """Signature and docstring as they stand in the code."""
    try:
        signature = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(value)))
    except (TypeError, ValueError):  # a property, an exception
        signature = ""
    return f"```text\n{name}{signature}\n\n{inspect.getdoc(value)}\n```"


def config() -> str:
    """Every key of a config, a section for each of its parts."""
    parts: dict[str, list[tuple[str, ...]]] = {}
    for key, info in keys(CampaignConfig):
        part, _, name = key.rpartition(".")
        row = (_code(name), _default(info), _field(info))
        parts.setdefault(part, []).append(row)
    columns = ("key", "default", "what it is")
    return "\n".join((
        "# Config keys\n",
        "`search.candidates`, `search.budget.unit` and `search.budget.base` have no default. "
        "`primevo validate CONFIG` prints a config with the defaults filled in.\n",
        *(_table(_code(part) or "At the top", columns, rows) for part, rows in parts.items()),
    ))  # fmt: skip


def study() -> str:
    """Every key of a study's config."""
    every = [*keys(StudyConfig), *keys(ProgramSpec, "programs.NAME.")]
    rows = [
        (_code(key), _default(info), _field(info))
        for key, info in every
        if not key.startswith(("task.", "workers."))
    ]
    return "\n".join((
        "# Config keys of a study\n",
        "`task` and `workers` are those of a campaign. `programs` holds a mapping for each name.\n",
        _table("At the top and below", ("key", "default", "what it is"), rows),
    ))  # fmt: skip


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """The leaves of a model with their dotted keys, in the order of the code."""
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", info


def _field(info: FieldInfo) -> str:
    """Meaning, type and bounds: `tokens a sequence (a whole number, >= 2, <= 1048576)`."""
    form = ", ".join(filter(None, (_kind(info.annotation), _bounds(info))))
    return f"{info.description} ({form})" if info.description else form


def primitives() -> str:
    rows = (
        (_code(row.name), _code(row.tf), ", ".join(row.reads), row.meaning)
        for row in PRIMITIVES.values()
    )
    return _page(
        "Primitives",
        f"All {len(PRIMITIVES)} primitives: what programs are made of. `reads` names the fields of "
        "an instruction that one reads.",
        ("name", "TensorFlow", "reads", "meaning"),
        rows,
    )


def mutations() -> str:
    rows = ((_code(row.name), _weight(row.name), row.meaning) for row in MUTATIONS.values())
    return _page(
        "Mutations",
        "`search.mutations` gives each mutation a weight; one that it leaves out is off.",
        ("name", "default weight", "what it does"),
        rows,
    )


def _weight(name: str) -> str:
    return f"{DEFAULT_PROBABILITIES[name]:.3g}" if name in DEFAULT_PROBABILITIES else "off"


def metrics() -> str:
    rows = (
        (_code(row.name), row.unit, row.better, row.where, row.meaning) for row in METRICS.values()
    )
    return _page(
        "Metrics",
        "What a run is measured by. `primevo top NAME --by METRIC` ranks by all but those of the "
        "test split.",
        ("name", "unit", "better", "measured on", "meaning"),
        rows,
    )


def seed_programs() -> str:
    rows = ((_code(name), headline(seed_text(name))) for name in seed_names())
    return _page(
        "Seed programs",
        "What `search.seeds` and `--seed-program` may name. `primevo seeds NAME` prints a program "
        "in full.",
        ("name", "what it is"),
        rows,
    )


def choices() -> str:
    """The smaller tables, on one page."""
    columns = ("name", "what it is")
    corpora = ((_code(row.name), row.meaning) for row in CORPORA.values())
    objectives = ((_code(row.name), row.meaning) for row in OBJECTIVES.values())
    backends = ((_code(row.name),) for row in BACKENDS.values())
    return "\n".join((
        "# Corpora, objectives, backends\n",
        _table("Corpora (`task.data.source`)", columns, corpora),
        _table("Objectives (`task.training.objective`)", columns, objectives),
        _table("Backends (`task.training.backend`)", ("name",), backends),
    ))  # fmt: skip


def _page(title: str, text: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return f"# {title}\n\n{text}\n\n{_lines(columns, rows)}"


def _table(title: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return f"## {title}\n\n{_lines(columns, rows)}"


def _lines(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


_WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _kind(kind: Any) -> str:
    """A field's type in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _kind(inner[0])
    if origin is Literal:
        return " or ".join(_code(str(each)) for each in inner)
    if origin in (Union, UnionType):
        return " or ".join(_kind(each) for each in inner)
    if origin is tuple:
        return f"a list of {_kind(inner[0])}"
    if origin is dict:
        return f"a mapping of {_kind(inner[0])} to {_kind(inner[1])}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"a mapping of {', '.join(map(_code, kind.model_fields))}"
    return _WORDS.get(kind, str(kind))


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "none"
    value = info.get_default(call_default_factory=True, validated_data={})
    assert value is not PydanticUndefined
    return _code(_yaml(value))


def _yaml(value: Any) -> str:
    import yaml

    plain = list(value) if isinstance(value, tuple) else value
    if isinstance(value, dict):
        plain = {key: round(item, 3) for key, item in value.items()}
    text: str = yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, width=1000)
    return text.removesuffix("...\n").strip()


def _bounds(info: FieldInfo) -> str:
    """The limits that the model checks: `>= 1, <= 16`."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "multiple_of": "a multiple of"}
    found = [
        f"{sign} {getattr(row, name)}"
        for row in info.metadata
        if isinstance(row, BaseMetadata)
        for name, sign in signs.items()
        if getattr(row, name, None) is not None
    ]
    return ", ".join(found)
