"""What commands open: a database, a campaign's config, a candidate's program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from search.cli.commands.options import DEFAULT_STORAGE

if TYPE_CHECKING:
    from primitives.language.dna import DNA
    from search.config.schema import CampaignConfig
    from search.storage.store import Store
    from workers.spec.task import Task


def open_store(storage: str | None) -> Store:
    """An existing database, by flag or environment, else the default one."""
    from search.storage.store import Store

    return Store.open(storage or DEFAULT_STORAGE, create=False)


@contextmanager
def reading(storage: str | None) -> Iterator[Store]:
    """An existing database for commands that only look: a StoreError where its content, though it
    is a database, is not what campaigns record."""
    with open_store(storage) as store, store.understanding():
        yield store


def stored_config(store: Store, name: str) -> CampaignConfig:
    """The config that the campaign was launched with; its plug-ins are loaded."""
    from search.config import plugins

    return plugins.stored_config(store.campaign(name).config, name)


def candidate_program(store: Store, name: str, id: int) -> DNA:
    """A candidate's program; a NotFoundError where there is no such campaign or candidate."""
    from search.campaign import queries

    stored_config(store, name)  # its plug-ins' primitives can be read from here on
    queries.candidate(store, name, id)
    return queries.stored_program(store, store.campaign(name), id)


def size_of(dna: DNA, task: Task) -> dict[str, int | str]:
    """Hash, length and static cost of a program that type-checks, at the task's sizes."""
    from search.campaign import size

    return size.size_of(dna, task)


def option(storage: str | None) -> str:
    """The storage option that a printed command needs to reach the same database. A password is
    not printed: such a command finds it where PRIMEVO_STORAGE says, or has `***` to fill in."""
    from os import environ
    from shlex import quote

    from search.secret import shown

    if storage in (None, DEFAULT_STORAGE):
        return ""
    public = shown(str(storage))
    if public != storage and environ.get("PRIMEVO_STORAGE") == storage:
        return ""
    return f" --storage {quote(public)}"
