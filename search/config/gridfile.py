"""A study's config as a file: a checked `StudyConfig`, or every problem in one message, as
`search.config.file` reads a campaign's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from primitives.programs.seeds import DEFAULT_WIDTH
from search.config.document import Document, Keys, of_data, read
from search.config.grid import Genes, StudyConfig
from search.config.parts import at, check_data, load_rows
from search.config.programfile import checked, load_program
from search.config.variant import variant
from search.config.verdict import StandIns, verdict
from search.config.wording import note
from search.errors import ConfigError, PrimevoError, UsageError
from workers.spec.fit import refused
from workers.spec.task import ModelSpec, Task

_BUDGET = {"unit": "steps", "amounts": [1]}
_STAND_INS: StandIns = {
    ("budget",): _BUDGET,
    ("budget", "unit"): "steps",
    ("budget", "amounts"): [1],
    ("programs",): {"transformer": {}},
}


def load_study(path: Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """The study in a YAML file with `--set key=value` laid over it, or a ConfigError. Its name is
    the file's where it has none."""
    config = _config(read(path, overrides), str(path))
    if config.name is not None:
        return config
    try:
        return StudyConfig.model_validate({**config.__dict__, "name": path.stem})
    except ValueError:
        raise UsageError(f"{path} has a name that no study can have: write name: ...") from None


def is_study(path: Path, overrides: Sequence[str] = ()) -> bool:
    """Whether a file says what a study needs and no campaign has."""
    return "programs" in read(path, overrides).data


def study_from_data(data: Mapping[str, object], source: str = "the config") -> StudyConfig:
    """The study in plain data, keys as in a file, or a ConfigError."""
    return _config(of_data(data, source), source)


def _config(document: Document, source: str) -> StudyConfig:
    config = None
    if load_rows(document):  # without their rows, the rest cannot be judged
        check_data(document)
        check_data(document, "task", "transfer")
        texts: Any = at(document, "grid", "data")
        for index in range(len(texts) if isinstance(texts, list) else 0):
            check_data(document, "grid", "data", index)
        _find_programs(document)
        judged = verdict(document.data, StudyConfig, _STAND_INS)
        note(document, judged, StudyConfig)
        config = judged.config
        if config is not None and judged.untouched(("task",), ("grid",), ("programs",)):
            _check_points(document, config)
    if config is None or document.problems:
        raise ConfigError(source, sorted(document.problems, key=lambda problem: problem.line))
    return config


def _find_programs(document: Document) -> None:
    """Each program is a seed program, or a file that parses; its absolute path takes the place of
    what names it."""
    programs = at(document, "programs")
    for name, spec in programs.items() if isinstance(programs, dict) else ():
        spec = programs[name] = {} if spec is None else spec  # `transformer:` alone
        word = spec.get("program", name) if isinstance(spec, dict) else None
        if not isinstance(word, str):
            continue
        keys: Keys = ("programs", name, "program")
        try:
            found, _ = load_program(word, DEFAULT_WIDTH, document.base(keys))
            spec["program"] = found
        except PrimevoError as error:
            document.add(keys if "program" in spec else keys[:-1], str(error))


def tasks(config: StudyConfig) -> Iterator[Task]:
    """The task of each combination of texts and sizes, in the order of the lists."""
    axes, own = config.grid, config.task.model
    lists = (axes.d_model or (own.d_model,), axes.layers or (own.layers,))
    lengths = axes.sequence_length or (own.sequence_length,)
    texts = axes.data or (config.task.data,)
    for text, width, layers, length in product(texts, *lists, lengths):
        sizes = {"d_model": width, "layers": layers, "sequence_length": length}
        model = ModelSpec.model_validate({**config.task.model.__dict__, **sizes})
        yield Task.model_validate({**config.task.__dict__, "data": text, "model": model})


def _check_points(document: Document, config: StudyConfig) -> None:
    """Every program has a type in every task, and a layer that runs it. One problem a program is
    told."""
    wrong = {problem.key for problem in document.problems}
    for name, spec in config.programs.items():
        if any(key.startswith(f"programs.{name}") for key in wrong):
            continue
        try:
            for task in tasks(config):
                for genes in spec.variants:
                    _check_point(name, spec.program or name, genes, task)
        except PrimevoError as error:
            document.add(("programs", name), str(error))


def _check_point(name: str, program: str, genes: Genes, task: Task) -> None:
    dna = variant(program, task.model.d_model, genes)
    title = " ".join([name, *(f"{key}={value}" for key, value in genes.items())])
    if reason := refused(checked(dna, title, task), task):
        raise UsageError(f"{title}: {reason}")
