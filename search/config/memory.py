"""Whether a config's seed programs can be trained in the memory that a worker has: told before
anything is launched."""

from __future__ import annotations

from collections.abc import Iterator

from search.config.programfile import checked, load_program, spaced, title_of
from search.config.schema import CampaignConfig
from search.errors import UsageError
from workers.spec.fit import vocabulary_of
from workers.spec.footprint import MB, Footprint, Term, footprint
from workers.spec.room import Room, room

NEAR = 0.8
"""The share of a worker's memory from which on an estimate is told: it leaves out what the
framework itself takes."""


def with_memory_limit(config: CampaignConfig) -> tuple[CampaignConfig, list[str]]:
    """The config with `search.limits.memory_mb` set to what a worker has here, unless it is given
    or the workers run elsewhere; and a warning for each seed program that may not fit. A UsageError
    names the first that cannot."""
    here = _room(config)
    if here is None:
        return config, []
    warnings = list(_warnings(config, here))
    if config.workers.address is not None:
        return config, warnings
    return limited(config, here.mb), warnings


def limited(config: CampaignConfig, mb: float | None) -> CampaignConfig:
    """The config with this limit of memory, or with none."""
    limits = config.search.limits.model_copy(update={"memory_mb": mb})
    search = config.search.model_copy(update={"limits": limits})
    return config.model_copy(update={"search": search})


def _room(config: CampaignConfig) -> Room | None:
    given = config.search.limits.memory_mb
    return room(config.workers) if given is None else Room(given, "search.limits.memory_mb")


def _warnings(config: CampaignConfig, here: Room) -> Iterator[str]:
    """One for each seed program that comes near to what there is; a UsageError for one that is
    beyond it in any case, unless the workers are on another machine than this one."""
    task = config.task
    elsewhere = config.workers.address is not None and here.meaning != "search.limits.memory_mb"
    for name in config.search.seeds:
        dna = spaced(load_program(name, task.model.d_model)[1], config.search.every)
        name = title_of(name)
        estimate = footprint(checked(dna, name, task), task, vocabulary_of(task))
        if estimate.least > here.mb * MB:
            told = _told(name, estimate, here)
            if not elsewhere:
                raise UsageError(told)
            yield f"{told}; the cluster's machines may have more"
        elif estimate.total > NEAR * here.mb * MB:
            term = estimate.largest(_bytes)
            yield (
                f"seed program '{name}' may run out of memory: training takes up to "
                f"{estimate.total / MB:,.0f} MB, most of it {term.name} ({term.bytes / MB:,.0f} "
                f"MB), and a worker has {here.mb:,.0f} MB ({here.meaning}); {term.fix}"
            )


def _told(name: str, estimate: Footprint, here: Room) -> str:
    term = estimate.largest(_least)
    return (
        f"seed program '{name}' cannot be trained: it takes at least {estimate.least / MB:,.0f} "
        f"MB, most of it {term.name} ({term.least / MB:,.0f} MB), and a worker has "
        f"{here.mb:,.0f} MB ({here.meaning}); {term.fix}"
    )


def _bytes(term: Term) -> float:
    return term.bytes


def _least(term: Term) -> float:
    return term.least
