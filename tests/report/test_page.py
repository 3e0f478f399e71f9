"""The page as text: what it says, what it escapes, that nothing is fetched."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from search.campaign import queries as campaign_queries
from search.campaign.controller import Controller
from search.errors import PrimevoError
from search.report.difference import Line, Pair, difference, side_by_side
from search.report.page import render
from search.report.view import read
from search.storage.store import Store
from tests.cli.command import primevo, refusal
from tests.report.synthetic import HOSTILE, write
from tests.search.instant import InstantEvaluator, launch
from workers.spec.outcome import Outcome

BETTER = ((3.0, 3.1, 3.05), (2.5, 2.6, 2.55))


class Elements(HTMLParser):
    """Tags with their attributes, and all text outside of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._hidden = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text += data

    def charts(self) -> list[str | None]:
        return [found["id"] for _, found in self.tags if found.get("class") == "chart"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(f"sqlite:///{tmp_path}/primevo.db")


def test_the_page_says_who_went_on_at_hurdles_and_who_was_meant_to(played: Store) -> None:
    now = campaign_queries.summary(played, "test").progress
    page = Elements(render(played, "test")).text
    first, last = (f"{on} of {there}" for on, there in zip(now.went_on, now.reached, strict=True))
    assert f"At the hurdles {first}, {last} children went on; 50% are meant to at each." in page
    assert f"{now.went_on[1] / now.children:.1%} (25.0% meant)" in page


def test_a_played_campaign_has_every_section(played: Store) -> None:
    page = Elements(render(played, "test"))
    assert page.charts() == [
        "finals", "progress", "step-time", "parameters", "flops", "outcomes", "refusals", "budget",
        "gains", "curves",
    ]  # fmt: skip
    for title in ("Best candidates", "Which mutations paid", "Lineage of candidate", "beside seed"):
        assert title in page.text


def test_routed_layers_have_a_section_where_there_are_any(
    played: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = {"experts_used": 0.75, "experts_unevenness": 0.25, "experts_dropped": 0.125}
    top = campaign_queries.top
    monkeypatch.setattr(
        campaign_queries, "top", lambda *rest: [{**row, **usage} for row in top(*rest)]
    )
    page = Elements(render(played, "test"))
    assert page.charts()[-1] == "experts"
    assert "0.7500" in page.text.partition("Routed layers")[2]


def test_nothing_is_fetched(played: Store) -> None:
    page = Elements(render(played, "test"))
    links = [found.get(key) for _, found in page.tags for key in ("src", "href") if key in found]
    assert links
    assert [link for link in links if not str(link).startswith(("#", "data:"))] == []


def test_texts_of_the_database_are_escaped(store: Store) -> None:
    write(store, HOSTILE, 60, hostile=True)
    text = render(store, HOSTILE)
    page = Elements(text)
    assert HOSTILE not in text
    assert [found for tag, found in page.tags if tag == "script" and "type" not in found] == [
        {},
        {},
    ]
    # Its name as title and heading; a mutation; a refusal; a line of its program.
    assert page.text.count(HOSTILE) > 20
    assert f"out = ADD(x, {HOSTILE}" in page.text


@pytest.mark.parametrize(
    ("finals", "word", "says"),
    [
        (BETTER, "Better", "0.7500 bits per byte under the seed program on the test split"),
        (BETTER[::-1], "Not better", "0.7500 bits per byte above the seed program"),
        (((3.0, 3.1), (3.0, 3.2)), "Cannot tell", "The interval holds zero; more runs"),
        (((3.0,), (2.0,)), "Cannot tell", "an interval needs two of each"),
        ((), "Cannot tell", "only runs with fresh seeds can tell"),
    ],
)
def test_the_verdict_is_in_words(
    store: Store, finals: tuple[tuple[float, ...], ...], word: str, says: str
) -> None:
    write(store, "one", 60, finals=finals)
    text = Elements(render(store, "one")).text
    assert re.search(rf"{word}\s*Candidate \d+ ", text)
    assert says in text
    assert "winner" not in text.lower()


def test_the_choice_does_not_look_at_the_test_split(played: Store) -> None:
    found = read(played, "test").found
    rows = [each.row for each in found.finalists if not each.row.is_seed]
    best = min(rows, key=lambda row: sum(row.val_losses) / len(row.val_losses))
    assert found.chosen == best.id


def test_a_campaign_without_results_has_a_page(store: Store) -> None:
    launch(store, "young")
    page = Elements(render(store, "young"))
    assert "No candidate has ended yet." in page.text
    assert page.charts() == []


def test_a_seed_program_alone_has_a_page(store: Store) -> None:
    write(store, "one", 1, finals=())
    page = Elements(render(store, "one"))
    assert page.charts()[0] == "progress"
    assert "No candidate has a lower validation loss than the seed program." in page.text


def test_a_campaign_of_only_failures_has_a_page(store: Store) -> None:
    fails = InstantEvaluator(outcome=lambda job: Outcome("crashed", reason=HOSTILE))
    with pytest.raises(PrimevoError):
        Controller(store, launch(store, "sad"), fails).run()
    page = Elements(render(store, "sad"))
    assert page.charts() == ["progress", "outcomes", "budget"]


class TestPrograms:
    def test_side_by_side_keeps_every_line(self) -> None:
        pairs = list(side_by_side("a\nb\nc\n", "a\nx\nc\nd\n"))
        assert pairs == [
            Pair("same", "a", "a"), Pair("changed", "b", "x"), Pair("same", "c", "c"),
            Pair("added", None, "d"),
        ]  # fmt: skip
        assert list(side_by_side("a\n", "")) == [Pair("removed", "a", None)]

    def test_a_difference_has_signs(self) -> None:
        lines = difference("a\nb\n", "a\nc\n")
        assert lines == [Line("@", ""), Line(" ", "a"), Line("-", "b"), Line("+", "c")]
        assert difference("a\n", "a\n") == []


class TestCommand:
    def test_it_writes_a_file_and_names_it(self, folder: Path) -> None:
        assert primevo("report", "small").stdout == "small-report.html\n"
        assert "small" in Elements((folder / "small-report.html").read_text()).text
        assert primevo("report", "small", "-o", "other.html").stdout == "other.html\n"

    def test_mistakes_are_told(self, folder: Path) -> None:
        assert "no campaign 'smal'; did you mean 'small'" in refusal(3, "report", "smal")
        assert "none/page.html: cannot be written" in refusal(
            1, "report", "small", "--to", "none/page.html"
        )
