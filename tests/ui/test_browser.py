"""The local site in a real browser: pytest -m browser. Screenshots stay in
PRIMEVO_TEST_SCREENSHOTS."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from search.campaign.controller import Controller
from search.storage.store import Store
from tests.report.browser import Browser, Page, chromium
from tests.report.synthetic import HOSTILE, write
from tests.report.test_browser import DRAWN, TOO_WIDE, keep
from tests.search.instant import InstantEvaluator, launch
from tests.ui.serving import serving

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="no chromium here: apt install chromium"),
]

ELSEWHERE = "elsewhere.example"
"""A site whose name leads to this machine."""

LIVE = "document.getElementById('live').textContent"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    leads_here = f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1"
    with Browser(str(chromium()), tmp_path_factory.mktemp("profile"), leads_here) as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.page() as opened:
        yield opened


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a site with a campaign that a controller ran, and of one whose every text is
    a script."""
    url = f"sqlite:///{tmp_path_factory.mktemp('site')}/primevo.db"
    with Store.open(url) as store:
        Controller(store, launch(store, "plain", candidates=100), InstantEvaluator()).run()
        write(store, HOSTILE, 30, hostile=True)
    with serving(url) as address:
        yield address


def until(page: Page, script: str, seconds: float = 90.0) -> None:
    """Waits for a JavaScript expression to be true."""
    end = time.monotonic() + seconds
    while not page.value(script):
        assert time.monotonic() < end, script
        time.sleep(0.1)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
def test_every_page_fits_draws_and_asks_nobody_else(
    page: Page, site: str, width: int, dark: bool
) -> None:
    page.emulate(width, 900, dark)
    for name, path, charts in (
        ("list", "/", 0), ("campaign", "/campaigns/plain", 10),
        ("candidate", "/campaigns/plain/candidates/42", 1),
    ):  # fmt: skip
        page.visit(site + path)
        drawn = page.value(DRAWN)
        assert len(drawn) == charts and all(drawn)
        assert page.value(TOO_WIDE) <= 0
        until(page, f"{LIVE} === 'live'")
        keep(page, f"ui-{name}-{width}-{'dark' if dark else 'light'}")
    assert page.errors == []
    assert [url for url in page.requests if not url.startswith(f"{site}/")] == []


def test_it_follows_a_running_campaign_and_keeps_the_readers_place(
    page: Page, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/primevo.db"
    recorded = "document.querySelector('.tiles div:nth-child(2) dd').textContent"
    with Store.open(url) as store, serving(url) as site:
        controller = Controller(store, launch(store, "run", candidates=60), InstantEvaluator())
        with controller.opened():
            for _ in range(30):
                controller.step(0.0)
            page.emulate(1280, 900, dark=False)
            page.visit(f"{site}/campaigns/run")
            before = page.value(recorded)
            assert page.value("document.getElementById('now').innerText").count("Running") == 1
            page.value("window.here = true; document.getElementById('history').open = false")
            page.value("Plotly.relayout('progress', {'xaxis.range': [3, 9]}); scrollTo(0, 700)")
            for _ in range(10):
                controller.step(0.0)
            until(page, f"{recorded} !== '{before}'")
            assert page.value("window.here && scrollY === 700"), "the page was loaded again"
            assert not page.value("document.getElementById('history').open")
            assert page.value("document.getElementById('progress').layout.xaxis.range") == [3, 9]
        Controller(store, store.campaign("run"), InstantEvaluator()).run()
        until(page, "document.getElementById('now').innerText.includes('Finished')")
        until(page, "document.getElementById('final-scores') !== null")
        order = page.value("[...document.querySelectorAll('section[id]')].map((each) => each.id)")
        assert order[:4] == ["now", "final-scores", "search", "best"]
        assert all(page.value(DRAWN))
        assert page.errors == []
    until(page, f"{LIVE} === 'not live: the server does not answer'")


def test_a_point_and_a_number_lead_to_a_candidate(page: Page, site: str) -> None:
    page.emulate(1280, 900, dark=False)
    page.visit(f"{site}/campaigns/plain")
    page.value(
        "document.getElementById('progress').emit('plotly_click', "
        "{points: [{text: 'candidate 7, swap'}]})"
    )
    until(page, "location.pathname === '/campaigns/plain/candidates/7'")
    until(page, "document.readyState === 'complete'")
    page.value("document.querySelector('input[name=id]').value = '12'")
    page.value("document.querySelector('.bar form').requestSubmit()")
    until(page, "location.pathname === '/campaigns/plain/candidates/12'")


def test_nothing_of_the_database_runs(page: Page, site: str) -> None:
    page.emulate(1280, 900, dark=False)
    for path in ("/", f"/campaigns/{quote(HOSTILE, safe='')}"):
        page.visit(site + path)
        assert HOSTILE in page.value("document.body.innerText")
    page.visit(f"{site}/campaigns/{quote(HOSTILE, safe='')}/candidates/9")
    assert f"out = ADD(x, {HOSTILE}" in page.value("document.body.innerText")
    keep(page, "ui-hostile")
    assert "Page.javascriptDialogOpening" not in {each["method"] for each in page._browser.events}
    assert page.errors == []


def test_a_script_that_got_in_would_not_run(page: Page, site: str) -> None:
    page.visit(f"{site}/campaigns/plain")
    page.value("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"mine = 1\">')")
    page.value(
        "document.head.append(Object.assign(document.createElement('script'), {text: 'mine = 1'}))"
    )
    page.value("new Promise((done) => setTimeout(done, 200))")
    assert page.value("typeof mine") == "undefined"
    assert any("Content Security Policy" in error for error in page.errors)


def test_another_site_cannot_read_it(page: Page, site: str) -> None:
    """Neither under a name of its own that leads here, nor from its own page."""
    port = site.rpartition(":")[2]
    page.visit(f"http://{ELSEWHERE}:{port}/")
    assert page.value("document.body.innerText") == "Invalid host header"
    asked = f"fetch('{site}/').then((answer) => answer.text()).catch(() => 'refused')"
    assert page.value(asked) == "refused"
    opaque = f"fetch('{site}/', {{mode: 'no-cors'}}).then(() => 'came').catch(() => 'refused')"
    assert page.value(opaque) == "refused"
