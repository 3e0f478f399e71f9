"""A campaign's config as a file: a checked `CampaignConfig`, or every problem in one message.

A problem names file, line and key path, what stands there, what may stand there, and the nearest
match. Relative paths inside a file count from that file's folder, those of --set from the current
one; in the result they are absolute, so that a campaign resumes from anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from primitives.language.dna import EVERY
from primitives.lowering.cost import program_layers
from primitives.programs.seeds import DEFAULT_WIDTH
from search.config.document import Document, Keys, of_data, read
from search.config.parts import at, check_data, load_rows, texts
from search.config.programfile import (
    CANDIDATE,
    checked,
    load_program,
    spaced,
    stored_program,
    title_of,
)
from search.config.schema import CampaignConfig
from search.config.verdict import StandIns, verdict
from search.config.wording import note
from search.errors import ConfigError, PrimevoError, UsageError
from workers.spec.task import Task

_BUDGET = {"unit": "steps", "base": 1}
_STAND_INS: StandIns = {
    ("search",): {"candidates": 10**9, "budget": _BUDGET},
    ("search", "candidates"): 10**9,
    ("search", "budget"): _BUDGET,
    ("search", "budget", "unit"): "steps",
    ("search", "budget", "base"): 1,
}


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
    if load_rows(document):  # without their rows, the rest cannot be judged
        _check_programs(document, find)
        check_data(document)
        check_data(document, "task", "transfer")
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
    judged = verdict(document.data, CampaignConfig, _STAND_INS)
    note(document, judged, CampaignConfig)
    if judged.config is not None and judged.untouched(*_DECIDE_FIT):
        _check_fit(document, judged.config)
    return judged.config


def _check_programs(document: Document, find: Find | None) -> None:
    """Each seed is the name of a seed program, or a file or a candidate that parses and
    type-checks. The texts of the latter become part of the config, so that a campaign depends on
    no file or row that may be gone when it goes on."""
    seeds: Any = at(document, "search", "seeds")
    width = at(document, "task", "model", "d_model")
    d_model = width if type(width) is int and width > 0 else DEFAULT_WIDTH
    for index, name in texts(seeds):
        keys = ("search", "seeds", index)
        try:
            if name.startswith(CANDIDATE):
                if find is None:
                    continue
                storage = at(document, "storage")
                name = find(name, storage if isinstance(storage, str) else None)
            seeds[index] = stored_program(name, d_model, document.base(keys))
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
    named = texts(at(document, "search", "seeds")) or enumerate(config.search.seeds)
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
