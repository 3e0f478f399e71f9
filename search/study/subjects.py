"""The programs that a person names for a study."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from primitives.language.dna import DNA
from search.campaign import queries
from search.config.plugins import stored_config
from search.config.programfile import load_program, spaced
from search.config.schema import CampaignConfig
from search.errors import UsageError
from search.storage.store import Store
from search.study.setting import Setting
from search.study.study import Subject

_CANDIDATE = re.compile(r"(?P<name>[^/]+)/(?P<id>[0-9]+)\Z")


def grouped(words: Sequence[str]) -> list[str]:
    """The words with each `NAME ID` as one `NAME/ID`.

    >>> grouped(["small", "12", "transformer", "small/3"])
    ['small/12', 'transformer', 'small/3']
    """
    found: list[str] = []
    for word in words:
        if word.isdecimal():
            if not found or _CANDIDATE.match(found[-1]):
                raise UsageError(
                    f"{word} is a candidate's number; write NAME/{word} or NAME {word}"
                )
            found[-1] = f"{found[-1]}/{word}"
        else:
            found.append(word)
    return found


def candidate_of(word: str) -> tuple[str, int] | None:
    """Campaign and number that a word names; None where it names a seed program or a file."""
    match = _CANDIDATE.match(word)
    if match is None or os.path.exists(word):
        return None
    return match["name"], int(match["id"])


@contextmanager
def opened(
    words: Sequence[str], config: CampaignConfig, url: str
) -> Iterator[tuple[Store, list[tuple[str, DNA]]]]:
    """The database, and the program of each word. What is wrong with words that name no candidate
    is told before a database is made; one that candidates are in must be there."""
    candidates = {word: found for word in words if (found := candidate_of(word))}
    outside = {word: outside_program(word, config) for word in words if word not in candidates}
    with Store.open(url, create=not candidates) as store:
        inside = {word: candidate_program(store, *one) for word, one in candidates.items()}
        yield store, [(word, (inside | outside)[word]) for word in words]


def outside_program(word: str, config: CampaignConfig) -> DNA:
    """A seed program, a program file, or an export's folder or card, loaded for the config's width
    and in the blocks that it says. A UsageError where there is none."""
    return spaced(load_program(word, config.task.model.d_model)[1], config.search.every)


def candidate_program(store: Store, name: str, id: int) -> DNA:
    """A candidate's program; its campaign's plug-ins are loaded."""
    campaign = store.campaign(name)
    stored_config(campaign.config, name)
    queries.candidate(store, name, id)
    return queries.stored_program(store, campaign, id)


def as_subjects(programs: Iterable[tuple[str, DNA]], setting: Setting) -> list[Subject]:
    """Programs with titles that differ: a second one of a name is told apart by its hash."""
    found: list[Subject] = []
    for title, dna in programs:
        subject = Subject.of(title, dna, setting)
        if title in {each.title for each in found}:
            subject = Subject(f"{title} ({subject.hash[:8]})", dna, subject.hash)
        found.append(subject)
    return found
