"""What the local site answers, over a real socket."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

from search.campaign import queries as campaign_queries
from search.campaign.controller import Controller
from search.report import queries
from search.storage.store import Store
from tests.report.test_page import Elements
from tests.search.instant import InstantEvaluator, launch
from tests.search.test_first_version import DUMP
from tests.ui.serving import get, serving


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with a campaign `test` that a controller ran."""
    made = f"sqlite:///{tmp_path_factory.mktemp('site')}/primevo.db"
    with Store.open(made) as store:
        Controller(store, launch(store, candidates=60), InstantEvaluator()).run()
    return made


@pytest.fixture(scope="module")
def site(url: str) -> Iterator[str]:
    with serving(url) as address:
        yield address


def test_the_campaigns_are_listed_and_lead_to_theirs(site: str) -> None:
    page = Elements(get(f"{site}/").text)
    assert ("a", {"href": "/campaigns/test"}) in page.tags
    assert "finished" in page.text


def test_a_campaign_has_the_sections_of_its_report(site: str) -> None:
    page = Elements(get(f"{site}/campaigns/test").text)
    assert page.charts() == [
        "finals", "progress", "step-time", "parameters", "flops", "outcomes", "refusals", "budget",
        "gains", "curves",
    ]  # fmt: skip
    assert "What was recorded last" in page.text


def test_a_candidate_has_all_that_show_prints(site: str, url: str) -> None:
    with Store.open(url) as store:
        rows = campaign_queries.top(store, "test", 10)
        best = next(row for row in rows if row["parent_id"] not in (None, 1))
        program = campaign_queries.program(store, "test", int(best["id"] or 0))
    page = Elements(get(f"{site}/campaigns/test/candidates/{best['id']}").text)
    assert page.charts() == ["curves"]
    assert str(best["hash"]) in page.text
    assert "layer_norm" in program and "layer_norm(x)" in page.text
    parent = f"/campaigns/test/candidates/{best['parent_id']}"
    assert ("a", {"href": parent}) in page.tags
    for title in ("Against its parent", "Beside seed program 1", "measured", "Lineage", "Log"):
        assert title in page.text
    assert f"validation loss {best['val_loss']:.4f}" in page.text.partition("Log")[2]


def test_every_kind_of_candidate_has_a_page(site: str, url: str) -> None:
    with Store.open(url) as store:
        runs = queries.runs(store, "test")
        finalists = [row.id for row in campaign_queries.summary(store, "test").final]
    duplicate = next(run.id for run in runs if run.duplicate_of is not None)
    failed = next(run.id for run in runs if run.outcome == "diverged")
    stopped = next(run.id for run in runs if run.fitness and run.hurdles_passed == 0)
    for id, says in (
        (1, "A seed program"), (duplicate, "taken over"), (failed, "loss is not finite"),
        (stopped, "completed"), (finalists[0], "final"),
    ):  # fmt: skip
        answer = get(f"{site}/campaigns/test/candidates/{id}")
        assert answer.code == 200
        assert says in Elements(answer.text).text, id


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/campaigns/tes", "no campaign 'tes'; did you mean 'test'?"),
        ("/campaigns/test/candidates/61", "has no candidate 61; it has 1 to 60"),
        ("/campaigns/test/candidates/99999999999", "has no candidate 99999999999"),
        ("/campaigns/test/candidate?id=x", "'x' is no number of a candidate"),
        ("/campaigns/test/candidate?id=" + 99 * "9", "is no number of a candidate"),
        ("/assets/../site.py", "Not Found"),
        ("/assets/..%2Fsite.py", "Not Found"),
        ("/other", "Not Found"),
    ],
)
def test_what_is_not_there_is_told(site: str, path: str, says: str) -> None:
    answer = get(site + path)
    assert answer.code == 404
    assert says in Elements(answer.text).text


def test_a_number_that_is_typed_in_leads_to_the_candidate(site: str) -> None:
    answer = get(f"{site}/campaigns/test/candidate?id=07")
    assert answer.code == 303
    assert answer.headers["location"] == "/campaigns/test/candidates/7"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/campaigns/test", "/campaigns/test/candidates/1"])
def test_nothing_but_reading_is_answered(site: str, method: str, path: str) -> None:
    assert get(site + path, method).code == 405


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example",
        "127.0.0.2", "0.0.0.0", "[::1]", "", "127.0.0.1@evil.example", "www.localhost",
    ],
)  # fmt: skip
def test_another_name_for_this_machine_is_turned_away(site: str, host: str) -> None:
    """A site may have its own name lead here, and would then read what its visitor's browser
    gets."""
    for path in ("/", "/campaigns/test", "/assets/page.css", "/other"):
        answer = get(site + path, Host=host)
        assert answer.code == 400
        assert "test" not in answer.text and len(answer.text) < 100


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:1"])
def test_this_machines_names_are_taken(site: str, host: str) -> None:
    assert get(f"{site}/", Host=host).code == 200


def test_every_answer_keeps_itself_to_itself(site: str) -> None:
    for path in ("/", "/campaigns/test", "/campaigns/none", "/assets/page.js", "/other"):
        headers = get(site + path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "'unsafe-eval'" not in policy and "script-src 'self';" in policy
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_pages_ask_for_nothing_from_elsewhere(site: str) -> None:
    for path in ("/", "/campaigns/test", "/campaigns/test/candidates/30"):
        tags = Elements(get(site + path).text).tags
        links = [found.get(key) for _, found in tags for key in ("src", "href") if key in found]
        assert all(str(link).startswith(("/", "#", "data:")) for link in links)
        assert not any(str(link).startswith("//") for link in links)


def test_a_page_that_has_not_changed_is_not_sent_again(site: str) -> None:
    for path in ("/", "/campaigns/test", "/campaigns/test/candidates/3"):
        first = get(site + path)
        again = get(site + path, If_None_Match=first.headers["etag"])
        assert (again.code, again.text) == (304, "")


def test_a_page_changes_with_its_campaign(tmp_path: Path) -> None:
    """Read beside a controller that writes."""
    url = f"sqlite:///{tmp_path}/primevo.db"
    with Store.open(url) as store, serving(url) as site:
        controller = Controller(store, launch(store, "live", candidates=20), InstantEvaluator())
        paths = ("/", "/campaigns/live", "/campaigns/live/candidates/1")
        with controller.opened():
            controller.step(0.0)
            before = {path: get(site + path) for path in paths}
            assert "Running" in Elements(before["/campaigns/live"].text).text
            for _ in range(10):
                controller.step(0.0)
            after = {
                path: get(site + path, If_None_Match=before[path].headers["etag"]) for path in paths
            }
            assert {answer.code for answer in after.values()} == {200}
        Controller(store, store.campaign("live"), InstantEvaluator()).run()
        last = get(f"{site}/campaigns/live", If_None_Match=after["/campaigns/live"].headers["etag"])
        assert "Finished" in Elements(last.text).text


def test_a_name_of_any_characters_has_its_pages(tmp_path: Path) -> None:
    url, name = f"sqlite:///{tmp_path}/primevo.db", "a/b ?#&%2F é"
    with Store.open(url) as store, serving(url) as site:
        launch(store, name)
        assert get(f"{site}/campaigns/{quote(name, safe='')}").code == 200
        assert f'href="/campaigns/{quote(name, safe="")}"' in get(f"{site}/").text


def test_an_older_database_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "primevo.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(DUMP.read_text(encoding="utf-8"))
    before = file.read_bytes()
    with serving(f"sqlite:///{file}") as site:
        answer = get(f"{site}/")
    assert answer.code == 500
    assert "upgrade it by: primevo db upgrade" in Elements(answer.text).text
    assert file.read_bytes() == before


def test_the_database_is_not_changed(url: str, site: str) -> None:
    file = Path(url.removeprefix("sqlite:///"))
    before = file.read_bytes(), file.stat().st_mtime_ns
    for path in ("/", "/campaigns/test", "/campaigns/test/candidates/2"):
        assert get(site + path).code == 200
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before


def test_a_database_that_goes_and_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "primevo.db"
    with Store.open(f"sqlite:///{file}") as store:
        launch(store, "here")
    with serving(f"sqlite:///{file}") as site:
        assert get(f"{site}/").code == 200
        away = file.rename(tmp_path / "away.db")
        answer = get(f"{site}/")
        assert answer.code == 500 and "cannot be opened" in answer.text
        away.rename(file)
        assert get(f"{site}/").code == 200
