"""Config files of campaigns and of studies."""

from __future__ import annotations

from collections.abc import Sequence

from search.config import file as config_file
from search.config import parts as config_parts
from search.errors import UsageError
from tests.fuzz.inputs import as_text, replaced, written


def config(data: bytes) -> str | None:
    """A config file. Plug-ins that it names are not imported here: to import them is what they are
    named for."""
    first, _, override = as_text(data).partition("\n--set ")
    path = written("config.yaml", first.encode("utf-8", "surrogateescape"))
    with replaced(config_parts, "load_plugins", _no_plugin):
        try:
            config_file.load(path, [override.partition("\n")[0]] if override else [])
        except UsageError as refusal:
            return str(refusal)
    return None


def _no_plugin(names: Sequence[str]) -> None:
    raise UsageError(f"no plug-in {names}")


def campaigns() -> list[bytes]:
    from search.config.examples import names, text

    examples = [text(name).encode() for name in names()]
    keys = (b"search.budget.base=5", b"task.model.positions=rotary")
    return [*examples, *(one + b"\n--set " + key for one in examples for key in keys)]


def study_config(data: bytes) -> str | None:
    """A file that `primevo study` reads: a grid of programs, sizes, texts and budgets."""
    from search.config import gridfile

    first, _, override = as_text(data).partition("\n--set ")
    path = written("study.yaml", first.encode("utf-8", "surrogateescape"))
    with replaced(config_parts, "load_plugins", _no_plugin):
        try:
            gridfile.load_study(path, [override.partition("\n")[0]] if override else [])
        except UsageError as refusal:
            return str(refusal)
    return None


def studies() -> list[bytes]:
    from search.config.examples import folder as examples

    texts = [path.read_bytes() for path in sorted((examples() / "studies").glob("*.yaml"))]
    small = b"programs: {transformer: {}}\nbudget: {unit: steps, amounts: [1, 2]}\n"
    grid = b"grid: {d_model: [16, 32], layers: [1], data: [{source: sotu}]}\n"
    varied = b"programs: {switch: {vary: {n0: [2, 4]}}}\nbudget: {unit: flops, amounts: [1e9]}\n"
    keys = (b"budget.amounts=[5]", b"grid.d_model=[8]")
    return [*texts, small, small + grid, varied, *(small + b"\n--set " + key for key in keys)]
