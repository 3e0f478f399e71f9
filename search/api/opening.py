"""What a user names: a database, a config, a program."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from search.api.program import Program
from search.campaign.seeding import finder
from search.cli.commands.options import DEFAULT_STORAGE
from search.config.file import from_data, load
from search.config.programfile import checked
from search.config.programfile import load_program as load_named
from search.config.schema import CampaignConfig
from search.errors import UsageError

ConfigLike = CampaignConfig | Mapping[str, object] | str | Path
Database = str | Path


def database_url(database: Database | None, otherwise: str = DEFAULT_STORAGE) -> str:
    """A database as a SQLAlchemy URL: one as it is, a path as a SQLite file; where none is named,
    that of PRIMEVO_STORAGE, else `otherwise`."""
    if database is None:
        return os.environ.get("PRIMEVO_STORAGE") or otherwise
    text = str(database)
    return text if "://" in text else f"sqlite:///{text}"


def load_config(config: ConfigLike, database: Database | None = None) -> CampaignConfig:
    """A checked config from a YAML file's path, from plain data with the same keys, or as it is.
    Candidates among its seed programs are looked up in `database`, or in that of PRIMEVO_STORAGE or
    of the config. Raises a ConfigError that lists everything that is wrong."""
    if isinstance(config, CampaignConfig):
        return config
    find = finder(None if database is None else database_url(database))
    if isinstance(config, Mapping):
        return from_data(config, find=find)
    return load(Path(config), find=find)


def load_program(source: str | Path | Program, d_model: int = 64) -> Program:
    """A program from a seed program's name, a file (`.dna`, `.json`, an export's `card.json` or its
    folder), or program text of several lines. Constants that are expressions of the width become
    numbers for `d_model` channels. Raises a UsageError with place and remedy."""
    if isinstance(source, Program):
        return source
    if isinstance(source, str) and "\n" in source:
        return _of_text(source, d_model)
    name, dna = load_named(str(source), d_model)
    path = Path(name)
    return Program(path.parent.name if path.name == "card.json" else path.stem, dna)


def _of_text(text: str, d_model: int) -> Program:
    from primitives.errors import ProgramError
    from primitives.language.text import parse

    try:
        dna = parse(text, "program", d_model)
    except ProgramError as error:
        raise UsageError(str(error)) from None
    checked(dna, "program")
    return Program("program", dna)
