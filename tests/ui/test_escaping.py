"""Whatever words a database holds, a page of the site is the same page: the same elements with the
same attributes, of which no word has become one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import update

from search.storage.events import Heartbeat
from search.storage.models import Campaign
from search.storage.store import Store
from search.ui import pages
from tests.report import synthetic
from tests.report.test_escaping import PLAIN, WORDS, Structure


def made_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, number: int
) -> Iterator[str]:
    """The list, a campaign that runs, the same interrupted, a candidate, and a failure, with the
    word in each of their texts."""
    monkeypatch.setattr(synthetic, "HOSTILE", word)
    with Store.open(f"sqlite:///{tmp_path}/{number}.db") as store:
        synthetic.write(store, word, 20, hostile=True)
        campaign = store.campaign(word)
        with store._engine.begin() as connection:
            connection.execute(update(Campaign).values(finished_at=None))
        yield pages.campaigns(store, word)
        with store.holding(campaign):
            store.beat(campaign.id, Heartbeat(1.0, 1, 2, word, 3.0, word, 4))
            yield pages.campaign(store, word)
        store.beat(campaign.id, Heartbeat(1.0, 1, 2, "", 3.0, "host", 4, ended=word))
        yield pages.campaign(store, word)
        yield pages.candidate(store, word, 7)
        yield pages.failure(word, word)


def found(page: Structure, word: str) -> list[object]:
    """Its elements, with addresses that have the plain word in the place of this one."""
    mine, plain = quote(word, safe=""), quote(PLAIN, safe="")
    return [
        (each[0], [(key, value and value.replace(mine, plain)) for key, value in each[1]])
        if isinstance(each, tuple) and isinstance(each[1], list)
        else each
        for each in page.found
    ]


def test_words_stay_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = [Structure(text) for text in made_with(tmp_path, monkeypatch, PLAIN, 0)]
    line_ends = [word for word in WORDS if "\u2028" in word]
    others = [word for word in WORDS if word not in line_ends]
    for number, word in enumerate(("".join(others), "".join(line_ends)), 1):
        texts = list(made_with(tmp_path, monkeypatch, word, number))
        for text, before in zip(texts, plain, strict=True):
            page = Structure(text)
            if "\u2028" in word:  # a program's lines end there, so that there are more of them
                assert {str(each) for each in found(page, word)} <= {
                    str(each) for each in found(before, PLAIN)
                }
            else:
                assert found(page, word) == found(before, PLAIN), word
            assert word in "".join(page.texts)
            for (attributes, content), (_, usual) in zip(page.scripts, before.scripts, strict=True):
                if attributes.get("type") == "application/json":
                    assert not set(content) & set("<>&\u2028\u2029"), word
                    json.loads(content)
                else:
                    assert content == usual, "no word comes into a script or a style"
