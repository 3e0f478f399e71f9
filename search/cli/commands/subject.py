"""The program that a command works on: a seed program, a file, or a campaign's candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.commands.opening import candidate_program, reading, stored_config
from search.errors import UsageError

if TYPE_CHECKING:
    from primitives.language.dna import DNA
    from search.campaign.queries import Record
    from search.config.schema import CampaignConfig

Name = Annotated[str | None, typer.Argument(metavar="[NAME", help="A campaign's name, and")]
Number = Annotated[int | None, typer.Argument(metavar="ID]", min=1, help="a candidate's number.")]
SeedProgram = Annotated[
    str | None, typer.Option("--seed-program", metavar="NAME", help="A seed program instead.")
]
DnaFile = Annotated[
    Path | None, typer.Option("--dna", metavar="FILE", help="A program file instead.")
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="CONFIG", help="Task and budget; default: those of the campaign."
    ),
]


@dataclass(frozen=True, slots=True)
class Subject:
    """A program with the config it is trained under; a candidate has its campaign, its record, and
    what a card tells of it besides."""

    title: str
    dna: DNA
    config: CampaignConfig
    campaign: str | None = None
    record: Record | None = None
    told: Mapping[str, Any] = field(default_factory=dict)


def find(
    name: str | None,
    id: int | None,
    seed_program: str | None,
    file: Path | None,
    config: Path | None,
    overrides: list[str] | None,
    storage: str | None,
) -> Subject:
    """The one program that the arguments name; a UsageError where they name none or several."""
    if sum(given is not None for given in (name, seed_program, file)) != 1:
        raise UsageError("name one program: NAME ID, --seed-program NAME, or --dna FILE")
    if overrides and config is None:
        raise UsageError("--set goes with --config")
    if name is not None:
        if id is None:
            raise UsageError(f"which candidate of {name}? write: {name} ID")
        return _candidate(name, id, config, overrides, storage)
    if config is None:
        raise UsageError("a program from outside a campaign needs --config CONFIG")
    from search.config.file import load
    from search.config.programfile import load_seed_program, read_program, spaced

    checked = load(config, overrides or ())
    d_model = checked.task.model.d_model
    if seed_program is not None:
        dna = spaced(load_seed_program(seed_program, d_model), checked.search.every)
        return Subject(seed_program, dna, checked)
    assert file is not None
    return Subject(file.stem, spaced(read_program(file, d_model), checked.search.every), checked)


def _candidate(
    name: str, id: int, config: Path | None, overrides: list[str] | None, storage: str | None
) -> Subject:
    from search.campaign import queries
    from search.config.file import load
    from search.report.told import told

    checked = load(config, overrides or ()) if config else None
    with reading(storage) as store:
        record = queries.candidate(store, name, id)
        dna = candidate_program(store, name, id)
        checked = checked or stored_config(store, name)
        about = told(store, name, id)
    return Subject(f"{name}-{id}", dna, checked, name, record, about)
