"""Candidates of one campaign as seed programs of another one: `search.seeds: [campaign:NAME/ID]`.

The config that is stored has the program's text, so that the new campaign depends on nothing that
may be deleted.
"""

from __future__ import annotations

import os
import re
from statistics import fmean

from search.campaign import queries
from search.config.file import Find
from search.config.plugins import stored_config
from search.config.programfile import CANDIDATE
from search.config.schema import CampaignConfig
from search.errors import UsageError
from search.storage.store import Store

_WORD = re.compile(re.escape(CANDIDATE) + r"(?P<name>[^/\n]+)(/(?P<id>[0-9]{1,9}))?\Z")


def finder(storage: str | None = None) -> Find:
    """Finds candidates in the database at `storage`; without it in that of PRIMEVO_STORAGE, of the
    config, or the default one."""

    def find(word: str, own: str | None) -> str:
        url = storage or os.environ.get("PRIMEVO_STORAGE") or own
        return program_text(url or str(CampaignConfig.model_fields["storage"].default), word)

    return find


def program_text(url: str, word: str) -> str:
    """The genome of the candidate that a word names, `campaign:NAME/ID`, or of its campaign's best
    one, `campaign:NAME`, under a comment that says where it comes from."""
    match = _WORD.match(word)
    if match is None:
        raise UsageError(
            f"{word[:120]!r} names no candidate; write campaign:NAME/ID, or campaign:NAME for the "
            "best one"
        )
    name = match["name"]
    with Store.open(url, create=False) as store, store.understanding():
        stored_config(store.campaign(name).config, name)  # its plug-ins' primitives are known
        id = int(match["id"]) if match["id"] else best(store, name)
        text = queries.program(store, name, id)
    return f"# candidate {id} of campaign {name}\n{text}"


def best(store: Store, name: str) -> int:
    """The candidate that a campaign offers: of the finalists that are no seed program the one with
    the lowest mean validation loss, else the best of the search. A UsageError where there is none
    yet."""
    final = queries.summary(store, name).final
    finalists = [row for row in final if not row.is_seed and row.val_losses]
    if finalists:
        return min(finalists, key=lambda row: fmean(row.val_losses)).id
    for record in queries.top(store, name, 1):
        return int(record["id"] or 0)
    raise UsageError(f"campaign '{name}' has no candidate with a score yet")
